#!/bin/sh
# Starts Locust, once the pod's sidecar (where it has one) takes calls: it has started, but not more, when this begins.
trap 'kill -TERM "$!" 2>/dev/null || exit 143' TERM # Locust's to handle, as soon as there is one
ready="import urllib.request; urllib.request.urlopen('http://127.0.0.1:$DAPR_HTTP_PORT/v1.0/healthz/outbound', timeout=2)"
tries=60
while [ -n "$DAPR_HTTP_PORT" ] && [ "$tries" -gt 0 ] && ! python3 -c "$ready" 2>/dev/null; do
  tries=$((tries - 1))
  sleep 0.5
done

# Not by `exec`: the first process of a container is deaf to a signal that it has no handler for, and Locust has none as
# long as it looks for its master.
locust "$@" &
wait "$!"
code=$?
while kill -0 "$!" 2>/dev/null; do # it was a signal that ended the waiting
  wait "$!"
  code=$?
done
exit "$code"
