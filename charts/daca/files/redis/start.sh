#!/bin/sh
# Starts Redis. The password reaches it on its standard input, so that it is in no file and in no list of arguments.
# It is taken byte for byte, a line end at its end among them: so do redis-cli in the probes, and Dapr.
set -eu
: "${REDISCLI_AUTH:?the secret holds no password}" # an empty one would let everybody in
case $REDISCLI_AUTH in
  \"*\" | \'*\' | \`*\`)
    echo "the password in the secret stands in quotes, which Dapr would leave out: make the secret without them" >&2
    exit 1
    ;;
esac
bytes=$(printf '%s' "$REDISCLI_AUTH" | od -An -v -tx1 | tr -d ' \n' | sed 's/../\\x&/g')
exec redis-server /etc/redis/redis.conf - <<END
requirepass "$bytes"
END
