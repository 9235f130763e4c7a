#!/bin/sh
# node-internet.sh PID COMMAND...: runs COMMAND, which finds the network of process PID as the file /mnt/network. It has
# given up the right to open it in /proc by the time it needs it. Started in a mount namespace of its own.
set -eu
mount -t tmpfs tmpfs /mnt
touch /mnt/network
mount --bind "/proc/$1/ns/net" /mnt/network
shift
exec "$@"
