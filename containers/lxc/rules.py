"""The nftables table of a ship's containers, as text: pure, and all of it made at once."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

from attrs import frozen

from containers.lxc.network import Plan


@frozen
class Exposed:
    """A port of the host that leads to the same port of the container at `address`, and at its
    other address."""

    port: int
    address: IPv4Address


def rules(plan: Plan, exposed: Sequence[Exposed]) -> str:
    """The whole of the ship's table, in place of the one that is there: one transaction."""
    ordered, tests, (front, port) = plan.ordered, plan.tests, plan.front
    ours = f'{{ "{ordered.bridge}", "{tests.bridge}" }}'
    from_them = ours if plan.tests_reach_ship else f'"{ordered.bridge}"'
    nets = f"{{ {ordered.network}, {tests.network} }}"
    nets6 = [str(zone.network6) for zone in (ordered, tests) if zone.network6]
    masquerade = [f"ip saddr {nets} ip daddr != {nets} masquerade"]
    six = f"{{ {', '.join(nets6)} }}"
    if nets6:
        masquerade.append(f"ip6 saddr {six} ip6 daddr != {six} masquerade")
    # ICMP by its numbers: a host without /etc/protocols knows no names.
    body = f"""
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != {ours} accept
    ct state established,related accept
    meta l4proto {{ 1, 58 }} accept
    iifname {from_them} ct status dnat accept
    iifname {from_them} tcp dport {port} accept
    reject
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname {ours} ip daddr 127.0.0.0/8 drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    iifname {ours} oifname {ours} reject
    iifname "{tests.bridge}" ip daddr 169.254.0.0/16 reject
    oifname {ours} ct status dnat accept
    oifname {ours} drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname {from_them} ip daddr {{ {ordered.gateway}, {tests.gateway} }} tcp dport 80 \
dnat ip to {front}:{port}
{_forwards(plan, exposed)}  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{_forwards(plan, exposed)}  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname {ours} ip saddr 127.0.0.0/8 masquerade
    {f"{chr(10)}    ".join(masquerade)}
  }}
"""
    body += _counting(plan, ours, [f"ip saddr {nets}", *([f"ip6 saddr {six}"] if nets6 else [])])
    return (
        f"table inet {plan.tag}\ndelete table inet {plan.tag}\ntable inet {plan.tag} {{{body}}}\n"
    )


def _counting(plan: Plan, ours: str, from_them: Sequence[str]) -> str:
    """Counters of what begins: before others' rules, and after them, see `firewall`."""
    counters = "\n".join(
        f"  counter {way}_{when} {{ }}" for way in ("out", "in") for when in ("wanted", "gone")
    )
    gone = "\n".join(f"    oifname != {ours} {them} counter name out_gone" for them in from_them)
    return f"""{counters}
  chain wanted {{
    type filter hook forward priority raw; policy accept;
    ct state != new accept
    iifname "{plan.tests.bridge}" ip daddr 169.254.0.0/16 accept
    iifname {ours} oifname != {ours} counter name out_wanted
    iifname != {ours} oifname {ours} ct status dnat counter name in_wanted
  }}
  chain gone {{
    type filter hook postrouting priority srcnat - 10; policy accept;
    ct state != new accept
{gone}
    oifname {ours} ct status dnat fib saddr type != local counter name in_gone
  }}
"""


def _forwards(plan: Plan, exposed: Sequence[Exposed]) -> str:
    lines = (
        f"    {here} {protocol} dport {one.port} dnat {to}:{one.port}\n"
        for one in exposed
        for here, to in _both(plan, one.address)
        for protocol in ("tcp", "udp")
    )
    return "".join(lines)


def _both(plan: Plan, address: IPv4Address) -> list[tuple[str, str]]:
    """What is asked for at the ship, and where it leads to: either address of a container.

    Nothing comes back to the loopback of IPv6, or to an address that is good for one link: who
    asks there is refused at once, and does not wait.
    """
    here = "fib daddr type local"
    ways = [(here, f"ip to {address}")]
    if (other := plan.address6(address)) is not None:
        ways.append((f"ip6 daddr != {{ ::1, fe80::/10 }} {here}", f"ip6 to [{other}]"))
    return ways
