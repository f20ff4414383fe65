"""What is to become of a structure, and why some of what was given for it cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve, frozen

from proxy.certificates import Certificate
from proxy.protection import Commons, Sign
from proxy.routes import ProxyError, Route, RouteTaken
from proxy.structure import Structure, check_named, check_sign

SIGNS = "signs"
CERTIFICATES = "certificates"

Refusals = dict[str, ProxyError]
"""Why something could not be had, by a service, a file of the operator's, `sign PATH`, or
`certificates`."""


@frozen
class Change:
    """What is to become of a structure. `made` is pure, and raises `ProxyError` where it cannot be.

    `about` is a service, a file of the operator's, or what all share. With `anyway` a reload
    follows though nothing may have changed.
    """

    about: str
    made: Callable[[Structure], Structure]
    anyway: bool = False


RENEWAL = Change("", lambda structure: structure, anyway=True)
"""The same again: laid down and reloaded."""


def adding(route: Route) -> Change:
    return Change(route.service, lambda structure: structure.with_route(route))


def removing(service: str) -> Change:
    return Change(service, lambda structure: structure.without(service))


def laying(name: str, text: str | None) -> Change:
    return Change(name, lambda structure: structure.with_file(name, text))


def signing(commons: Commons) -> tuple[Change, Refusals]:
    """To the signs of `commons`, but for those that are refused."""
    signs, refused = _admitted(commons.signs)
    return Change(SIGNS, lambda structure: evolve(structure, signs=signs)), refused


def certifying(certificates: Mapping[str, Certificate], *, tls: bool) -> tuple[Change, Refusals]:
    """To these, by host. With `tls` a default one is missed."""
    for host in certificates:
        check_named(host)
    refused: Refusals = {}
    if tls and "" not in certificates:
        refused[CERTIFICATES] = ProxyError("no TLS: there is no default certificate")
    change = Change(CERTIFICATES, lambda structure: evolve(structure, certificates=certificates))
    return change, refused


def hidden(structure: Structure) -> Refusals:
    """Signs at whose path a route is."""
    return {
        f"sign {path}": RouteTaken(f"{path} already leads to {structure.taken[path]}")
        for path in structure.signs
        if path in structure.taken
    }


def _admitted(signs: tuple[Sign, ...]) -> tuple[dict[str, Sign], Refusals]:
    admitted: dict[str, Sign] = {}
    refused: Refusals = {}
    for sign in signs:
        try:
            check_sign(sign)
            if admitted.setdefault(sign.path, sign) is not sign:
                raise RouteTaken(f"{sign.path} leads elsewhere already")
        except ProxyError as error:
            refused[f"sign {sign.path}"] = error
    return admitted, refused
