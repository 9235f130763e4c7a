#!/bin/sh
# node-init.sh STATE CATATONIT PODS SERVICES: the first process of a node's namespaces. When it ends, the kernel ends every other
# process of the node and drops all its mounts and its network.
set -eu
state=$1 catatonit=$2 pods=$3 services=$4

# A kubelet propagates mounts between pods and node: none of them reaches the machine. What programs write to fixed
# places goes to the node's state.
mount --make-rshared /
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/lock
for folder in /var/log /var/lib/cni /var/lib/kubelet; do
  mount --bind "$state$folder" "$folder"
done

ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
# A pod that is gone is not looked for on the internet. The machine, asked there, would send it back, round and round.
ip route add unreachable "$pods"
# Only this node knows where its pods are: on the interface that leads to the internet they go by the node's address.
iptables -t nat -A POSTROUTING -o internet -j MASQUERADE
# Nor is a Service. While kube-proxy writes that it has no pod left, its address is nobody's for a moment, and somebody on
# the internet might answer. Not by a route: the node's own programs would meet it before kube-proxy's rules.
for chain in FORWARD OUTPUT; do
  iptables -A "$chain" -o internet -d "$services" -j REJECT
done
# pasta sends now and then a segment that belongs to no connection for the kernel. Left alone, it would be answered with
# a reset, which ends the connection of the pod that it was meant for.
iptables -A INPUT -i internet -m conntrack --ctstate INVALID -j DROP

# The kernel's parameters belong to the whole machine, those of the node's own network excepted. A kubelet insists on a
# few (a kernel that panics, for one): it finds them as it wants them, in files that the kernel does not know.
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,ro /proc/sys
while read -r parameter value; do
  mkdir -p "/run/sys/${parameter%/*}"
  echo "$value" >"/run/sys/$parameter"
  mount --bind "/run/sys/$parameter" "/proc/sys/$parameter"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END

exec "$catatonit" -P
