#!/bin/sh
# started DIRECTORY: LXC's start-host hook. The container is made, and nothing of it runs yet.
#
# Cuts it off from its neighbours, bounds what no cgroup counts, leads its ports to its service, and
# looks whether every limit is in force. The word "up", or why it cannot run, goes to the pipe in
# DIRECTORY.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd "$1" || exit
{
  say() { echo "$1"; exit 1; }
  # Two things that nothing else bounds: inotify is counted for all containers and the host's root
  # together, and IPv6 leaves with whatever address a program asks for.
  nsenter --user="/proc/$LXC_PID/ns/user" --net="/proc/$LXC_PID/ns/net" sh -c '
    set -e
    echo 64 >/proc/sys/user/max_inotify_instances
    echo 65536 >/proc/sys/user/max_inotify_watches
    [ -s veth ] || exit 0
    [ ! -s inside.nft ] || echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
    exec nft -f -
  ' <<RULES &
table inet starphleet-own {
  chain output {
    type filter hook output priority filter;
    oifname "eth0" fib saddr type != local ip6 saddr != :: drop
  }
}
include "./inside.nft"
RULES
  inside=$!
  if [ -s veth ]; then
    read -r veth <veth
    echo 1 >"/sys/class/net/$veth/brport/isolated" || say 'its network is not cut off'
  fi
  # A process for each would be most of what a start takes.
  while read -r file value; do
    read -r found <"$file"
    [ "$found" = "$value" ] || say "the limit $value is not in force: ${file##*/} $found"
  done <limits
  wait "$inside" || say 'its network is not bounded, or its ports do not lead to its service'
  echo up
} 1<>up 2>&1 # for reading too: then nobody has to listen
