#!/bin/sh
# Runs trim.lua, which lies beside it, every TRIM_SECONDS on the streams that are its arguments. Dapr acknowledges an
# event and leaves it in its stream: without this, what was read long ago would fill the memory of Redis for good.
set -eu
nap=
trap '[ -z "$nap" ] || kill "$nap"; exit 0' TERM INT HUP # a shell that is process 1 heeds no signal by itself
while :; do
  answer=$(redis-cli --eval "${0%/*}/trim.lua" "$@" 2>&1) || true
  case $answer in
    '' | *[!0-9]*) echo "not trimmed, to be tried again: $answer" >&2 ;;
  esac
  sleep "$TRIM_SECONDS" &
  nap=$!
  wait "$nap"
  nap=
done
