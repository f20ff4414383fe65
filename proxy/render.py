"""From a structure to nginx's configuration: pure text, and every name has passed a grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import cache
from pathlib import Path

from attrs import frozen
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from proxy.directives import Directive, directives
from proxy.facts import facts
from proxy.grammar import HOST
from proxy.instance import Instance
from proxy.routes import Route
from proxy.structure import Structure

LUA = ("front", "guard", "own", "pages", "quick", "starphleet", "tls", "ways")
PAGES = (
    ("= /starphleet/dashboard", "false"),
    ("^~ /starphleet/dashboard/", "false"),
    ("= /starphleet/status", "false"),
    ("= /starphleet/logstream", "true"),
    ("= /starphleet/metrics", "true"),
)
"""Locations of the ship's own pages, and whether the site takes tokens of its own there."""
MATTER = {"proxy_buffering"}  # what a cached location has to say for itself


@frozen
class Way:
    """One location that leads to a service. One that is cached knows the way past its cache."""

    service: str
    path: str
    text: str
    past: Way | None = None


def _text(lines: Sequence[Directive], cached: bool) -> str:
    """The directives for a location. What is to be kept for how long, the guard's answers are not
    to say: so `expires` is by a variable."""
    text = []
    for each in lines:
        if each.name == "expires":
            value = Directive("set", ("$sp_expires", *each.words))
            text += [value.text, "expires $sp_expires;"]
        elif not (cached and each.name in MATTER):
            text.append(each.text)
    return " ".join(text)


def _way(route: Route, path: str, *, cached: bool = False) -> Way:
    text = _text(directives(route.locations), cached)
    return Way(route.service, path, text, _way(route, path) if cached else None)


def particular(structure: Structure) -> tuple[list[Way], list[str]]:
    """The paths that need locations of their own: to services, and those of signs.

    They have directives, or are cached, or lie below one of those. Lua finds all others.
    """
    routes = structure.routes.values()
    signs = structure.standing_signs
    ways = [_way(route, route.path) for route in routes if route.path]
    ways += [_way(structure.routes[sign.service], sign.path) for sign in signs if sign.service]
    found = [_way(route, route.cached_path, cached=True) for route in routes if route.cached]
    found += [way for way in ways if way.text]
    above = {way.path for way in found}
    found += [way for way in ways if not way.text and _below(way.path, above)]
    return (
        sorted(found, key=lambda way: way.path),
        [sign.path for sign in signs if sign.url and _below(sign.path, above)],
    )


def _below(path: str, above: Set[str]) -> bool:
    """Whether `path` lies below one of `above`."""
    return any(path[:at] in above for at, letter in enumerate(path, start=1) if letter == "/")


@cache
def _template() -> Template:
    # Nothing here is HTML; names are safe by grammar, and an undefined one is an error.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("proxy", ""), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("nginx.conf.j2")


def render(instance: Instance, structure: Structure, generation: int) -> str:
    """The whole of nginx.conf; equal structures give equal text."""
    routes = sorted(structure.routes.values(), key=lambda route: route.service)
    paths, signs = particular(structure)
    plain = [route for route in routes if not route.locations]
    redirects = sorted(host for route in routes for host, _ in route.redirects)
    tls = instance.https_port is not None and "" in structure.certificates
    return _template().render(
        instance=instance,
        pages=PAGES,
        generation=generation,
        tls=tls,
        named=[host for host in structure.certificates if host],
        redirecting=(tls or bool(instance.proxies)) and instance.https_redirect,
        paths=paths,
        signs=signs,
        root=any(way.path == "/" for way in paths),
        hosts=sorted((host, route.service) for route in plain for host in route.hosts),
        particular=[(route, _way(route, "/")) for route in routes if route.locations],
        redirects=redirects,
        known=_known(instance, structure, redirects),
        ports=[(route.port, _way(route, "/")) for route in routes if route.port is not None],
        cached=any(route.cached for route in routes),
        operators=sorted(structure.files),
    )


def _known(instance: Instance, structure: Structure, redirects: Sequence[str]) -> list[str]:
    """The hosts that the ship has a name for."""
    hosts = (host for route in structure.routes.values() for host in route.hosts)
    certified = (host for host in structure.certificates if HOST.fullmatch(host))
    own = [instance.own_host] if instance.own_host else []
    return sorted({*own, *hosts, *redirects, *certified})


@cache
def lua() -> Mapping[str, str]:
    """The Lua that every generation brings along, beside its configuration."""
    here = Path(__file__).parent
    return {f"{name}.lua": (here / f"{name}.lua").read_text() for name in LUA}


def generation_files(
    instance: Instance, structure: Structure, generation: int
) -> dict[str, str | bytes]:
    """Every file of a generation, by its name in there."""
    files: dict[str, str | bytes] = {
        "nginx.conf": render(instance, structure, generation),
        "services.lua": facts(structure),
        **lua(),
    }
    for number, (_, pair) in enumerate(sorted(structure.certificates.items())):
        files[f"tls/{number}.crt"] = pair.chain
        files[f"tls/{number}.key"] = pair.key
    for name, text in structure.files.items():
        files[f"operator/{name}"] = text
    return files
