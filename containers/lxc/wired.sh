# LXC's script for an interface that was made, in the directory of what the ship wrote for it. The
# container's namespaces are there; LXC lays its files meanwhile.
#
# Cuts it off from its neighbours, bounds what no cgroup counts, and leads its ports to its service.
# The word "bounded", or why it is not, goes to the pipe of that name: started.sh waits for it.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
if [ -n "$LXC_NET_PEER" ] && ! echo 1 >"/sys/class/net/$LXC_NET_PEER/brport/isolated"; then
  echo 'its network is not cut off' 1<>up
  exit 1
fi
{
  # Two things that nothing else bounds: inotify is counted for all containers and the host's root
  # together, and IPv6 leaves with whatever address a program asks for.
  nsenter --user="/proc/$LXC_PID/ns/user" --net="/proc/$LXC_PID/ns/net" sh -ec '
    echo 64 >/proc/sys/user/max_inotify_instances
    echo 65536 >/proc/sys/user/max_inotify_watches
    [ ! -s inside.nft ] || echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
  ' &
  said=$(
    exec 2>&1
    [ -n "$LXC_NET_PEER" ] || exit 0
    exec nsenter --net="/proc/$LXC_PID/ns/net" nft -f - <<RULES
table inet starphleet-own {
  chain output {
    type filter hook output priority filter;
    oifname "eth0" fib saddr type != local ip6 saddr != :: drop
  }
}
include "./inside.nft"
RULES
  ) && wait "$!" && said=bounded
  set -f
  echo $said >bounded # in one line
} >/dev/null 2>&1 &
