#!/bin/sh
# started DIRECTORY: LXC's start-host hook. The container is made, and nothing of it runs yet.
#
# Cuts it off from its neighbours, leads its ports to its service, and looks whether every limit
# is in force. The word "up", or why it cannot run, goes to the pipe in DIRECTORY.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd "$1" || exit
{
  say() { echo "$1"; exit 1; }
  if [ -s veth ]; then
    echo 1 >"/sys/class/net/$(cat veth)/brport/isolated" || say 'its network is not cut off'
  fi
  # Nothing else of the kernel's keeps IPv6 from leaving with the address of somebody else.
  nsenter --net="/proc/$LXC_PID/ns/net" nft -f - <<OWN || say 'it could pretend to be somebody else'
table inet starphleet-own {
  chain output {
    type filter hook output priority filter;
    oifname "eth0" fib saddr type != local ip6 saddr != :: drop
  }
}
OWN
  if [ -s inside.nft ]; then
    nsenter --net="/proc/$LXC_PID/ns/net" sh -c '
      echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet && exec nft -f inside.nft
    ' || say 'its ports do not lead to its service'
  fi
  while read -r file value; do
    [ "$(cat "$file")" = "$value" ] || say "the limit $value is not in force: ${file##*/} $(cat "$file")"
  done <limits
  echo up
} >up 2>&1
