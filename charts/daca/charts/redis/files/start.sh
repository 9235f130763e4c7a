#!/bin/sh
# Starts Redis. The password reaches it on its standard input, so that it is in no file and in no list of arguments.
set -eu
: "${REDISCLI_AUTH:?the secret holds no password}" # an empty one would let everybody in
quoted=$(printf '%s' "$REDISCLI_AUTH" | sed 's/["\\]/\\&/g')
exec redis-server /etc/redis/redis.conf - <<END
requirepass "$quoted"
END
