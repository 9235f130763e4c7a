#!/bin/sh
# Starts Locust, once the pod's sidecar (where it has one) takes calls: it has started, but not more, when this begins.
trap 'exit 143' TERM
ready="import urllib.request; urllib.request.urlopen('http://127.0.0.1:$DAPR_HTTP_PORT/v1.0/healthz/outbound', timeout=2)"
tries=60
while [ -n "$DAPR_HTTP_PORT" ] && [ "$tries" -gt 0 ] && ! python3 -c "$ready" 2>/dev/null; do
  tries=$((tries - 1))
  sleep 0.5
done
exec locust "$@"
