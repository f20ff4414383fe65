"""What nginx's Lua has to know of a structure, as Lua: nothing in it is more than a string."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from proxy.routes import Route
from proxy.structure import Structure

_PLAIN = re.compile(r"[A-Za-z0-9 /._:~@=&?-]")


def _string(text: str) -> str:
    """`text` as a string of Lua: whatever could mean something is written by its number."""
    return '"' + "".join(_character(byte) for byte in text.encode()) + '"'


def _character(byte: int) -> str:
    return chr(byte) if _PLAIN.fullmatch(chr(byte)) else f"\\{byte:03d}"


def _table(entries: Mapping[str, str]) -> str:
    """A table of Lua; the values are Lua already."""
    return "{" + ",".join(f"[{_string(k)}]={v}" for k, v in sorted(entries.items())) + "}"


def _headers(pairs: Sequence[tuple[str, str]]) -> str:
    """By name; one that is given several times has all its values."""
    values: dict[str, tuple[str, list[str]]] = {}
    for name, value in pairs:
        values.setdefault(name.lower(), (name, []))[1].append(_string(value))
    return _table(
        {
            name: given[0] if len(given) == 1 else "{" + ",".join(given) + "}"
            for name, given in values.values()
        }
    )


def _fact(route: Route) -> str:
    entries = {}
    if route.identity_header.lower() != "x-identity":
        entries["identity"] = _string(route.identity_header.lower())
    if route.request_headers:
        entries["request"] = _headers(route.request_headers)
    if route.response_headers:
        entries["response"] = _headers(route.response_headers)
    if route.origins:
        entries["origins"] = _table(dict.fromkeys(route.origins, "true"))
    return _table(entries) if entries else ""


def facts(structure: Structure) -> str:
    """The text of services.lua."""
    lines = ["local services = {};"]
    for service, route in sorted(structure.routes.items()):
        fact = _fact(route)
        if fact:
            # A function each: Lua bounds how many constants one function may have.
            lines.append(f"(function() services[{_string(service)}] = {fact} end)();")
    routes = structure.routes.values()
    redirects = {host: _string(url) for route in routes for host, url in route.redirects}
    signs = {sign.path: _string(sign.url) for sign in structure.standing_signs if sign.url}
    aliases = {s.path: s.service for s in structure.standing_signs if s.service}
    paths = {**aliases, **{route.path: route.service for route in routes if route.path}}
    hosts = {
        host: _string(str(number))
        for number, host in enumerate(sorted(structure.certificates))
        if host
    }
    return "\n".join(
        [
            *lines,
            "return {",
            "services = services,",
            f"redirects = {_table(redirects)},",
            f"signs = {_table(signs)},",
            f"paths = {_table({path: _string(service) for path, service in paths.items()})},",
            f"depth = {max((path.count('/') for path in (*paths, *signs)), default=0)},",
            f"certificates = {_table(hosts)},",
            "}",
            "",
        ]
    )
