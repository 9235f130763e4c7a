#!/bin/sh
# init.sh RUN CHECKOUT COMMAND...: makes these namespaces the machine of an engine, and runs COMMAND in the checkout. When
# it ends, the kernel ends every other process and drops all mounts.
set -eu
run=$1 checkout=$2
shift 2

mount --make-rshared /
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/lock
mount --bind "$run/etc/resolv.conf" /etc/resolv.conf
mount --bind "$run/etc/hosts" /etc/hosts
# What is written into the checkout stays out of it.
mount -t overlay -o "lowerdir=$checkout,upperdir=$run/upper,workdir=$run/work" checkout "$checkout"
# The engine finds the cgroups that everything here is below as if they were all there are.
mount -t tmpfs -o mode=0755 tmpfs /sys/fs/cgroup
while IFS=: read -r _ controllers _; do
  case $controllers in
  '') folder=unified options=rw type=cgroup2 ;;
  name=*) folder=${controllers#name=} options=none,$controllers type=cgroup ;;
  *) folder=$controllers options=$controllers type=cgroup ;;
  esac
  mkdir "/sys/fs/cgroup/$folder"
  mount -t "$type" -o "$options" "$type" "/sys/fs/cgroup/$folder"
done </proc/self/cgroup

ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
for _ in 1 2 3 4 5 6 7 8 9 10; do
  [ -z "$(ip route show default)" ] || break
  sleep 0.2
done
# Addresses of kind, its pods and its services are nobody's on the internet, also before anything here knows them.
for addresses in 10.96.0.0/12 10.244.0.0/16 10.88.0.0/13 172.16.0.0/12 192.168.0.0/16; do
  for chain in FORWARD OUTPUT; do
    iptables -A "$chain" -o internet -d "$addresses" -j REJECT
  done
done
# pasta sends now and then a segment that belongs to no connection for the kernel. Left alone, it would be answered with
# a reset, which ends the connection of the container that it was meant for.
iptables -A INPUT -i internet -m conntrack --ctstate INVALID -j DROP

# The kernel's parameters belong to the whole machine, those of this network excepted.
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,ro /proc/sys

cd "$checkout"
exec "$@"
