"""All that a configuration of nginx is made of; what changes it is a change of structure."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, field, frozen

from proxy.certificates import Certificate
from proxy.grammar import HOST, PATH, SERVICE, THE_SHIPS, URL, InvalidRoute, RouteTaken, matches
from proxy.protection import Sign
from proxy.routes import Route

SHIP = "the ship itself"


@frozen
class Structure:
    """All routes, one per service; no host, path or port leads to two of them.

    `signs` are known by their paths, where a route goes before them; `certificates` by the host
    names that they are for, "" for all others; `files` are the operator's own, by name. `taken`
    says what leads to whom.
    """

    routes: Mapping[str, Route] = field(factory=dict)
    signs: Mapping[str, Sign] = field(factory=dict)
    certificates: Mapping[str, Certificate] = field(factory=dict, repr=False)
    files: Mapping[str, str] = field(factory=dict, repr=False)
    taken: Mapping[str, str] = field(factory=dict, eq=False, repr=False)

    def with_route(self, route: Route) -> Structure:
        """This and `route`, in place of an earlier one of its service. Raises `RouteTaken`."""
        for way in route.ways:
            owner = self.taken.get(way, route.service)
            if owner != route.service:
                raise RouteTaken(f"{route.service} cannot have {way}: it already leads to {owner}")
        bare = self.without(route.service)
        return evolve(
            bare,
            routes={**bare.routes, route.service: route},
            taken={**bare.taken, **dict.fromkeys(route.ways, route.service)},
        )

    def without(self, service: str) -> Structure:
        """This without the route of `service`, which need not be known."""
        route = self.routes.get(service)
        if route is None:
            return self
        routes, taken = dict(self.routes), dict(self.taken)
        del routes[service]
        for way in route.ways:
            del taken[way]
        return evolve(self, routes=routes, taken=taken)

    def with_file(self, name: str, text: str | None) -> Structure:
        """This with a file of the operator's, or without it."""
        others = {n: t for n, t in self.files.items() if n != name}
        return evolve(self, files=others if text is None else {**others, name: text})

    @property
    def standing_signs(self) -> tuple[Sign, ...]:
        """Those whose path is no route's, and that lead to a service that is known."""
        return tuple(
            sign
            for path, sign in sorted(self.signs.items())
            if path not in self.taken and (not sign.service or sign.service in self.routes)
        )


def check_sign(sign: Sign) -> None:
    """Raises `InvalidRoute`."""
    if matches("path", PATH, sign.path).startswith(THE_SHIPS):
        raise InvalidRoute(f"path {sign.path} is refused: it is the ship's own")
    if bool(sign.service) == bool(sign.url):
        raise InvalidRoute(f"{sign.path} must lead either to a service or to a URL")
    if sign.service:
        matches("service name", SERVICE, sign.service)
    elif not PATH.fullmatch(sign.url):
        matches("target", URL, sign.url)
    if sign.url == sign.path:
        raise InvalidRoute(f"{sign.path} leads to itself")


def check_named(host: str) -> None:
    """Whether a certificate can be for `host`: "" or a name, maybe a wildcard."""
    if host:
        matches("host of a certificate", HOST, host.removeprefix("*."))
