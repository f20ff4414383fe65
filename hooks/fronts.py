"""From an environment and the files beside orders to the way to a service, and who may take it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import evolve

from hooks.errors import Refused
from hooks.standing import File, Front
from proxy.grammar import ORIGIN
from proxy.guard.reading import protection_of
from proxy.protection import NotProtected

_OFF = ("", "0")
AS_BEFORE = "Private, as before; git push -o public ends that"


def front_of(
    environment: Mapping[str, str], files: Mapping[str, File], said: Front, devmode: bool
) -> tuple[Front, tuple[str, ...]]:
    """What `said` becomes by `environment` and the `files` beside the orders; and warnings.

    `Refused` names the setting that is wrong or missing.
    """
    beside = {name: file.data for name, file in files.items() if _protects(name)}
    try:
        protection, warnings = protection_of(environment, beside, said.betas, devmode=devmode)
    except NotProtected as error:
        raise Refused(str(error)) from None
    front = evolve(
        said,
        published=_published(environment.get("PUBLISH_PORT", "")),
        origins=_origins(environment.get("CORS_ORIGINS", "")),
        protection=protection,
    )
    return front, warnings


def as_pushed(front: Front, private: bool | None, before: bool) -> tuple[Front, tuple[str, ...]]:
    """The way to what is pushed with `-o private` (True), `-o public` (False) or neither: then as
    it was `before`; and warnings. `Refused` where its environment says already who may use it."""
    mode = front.protection.mode
    if private and mode not in ("public", "private"):
        raise Refused(f"-o private: {mode} is asked for already, by SECURITY_MODE or HTPASSWD")
    if private is False and mode != "public":
        raise Refused(f"-o public: SECURITY_MODE or HTPASSWD asks for {mode}")
    again = private is None and before and mode == "public"
    if not private and not again:
        return front, ()
    protection = evolve(front.protection, mode="private", forced="")
    return evolve(front, protection=protection), (AS_BEFORE,) if again else ()


def in_devmode(environment: Mapping[str, str], ship: bool | None) -> bool:
    """Whether this is a workstation: the ship knows, else the headquarters says DEVMODE_ENABLED."""
    return bool(environment.get("DEVMODE_ENABLED")) if ship is None else ship


def _protects(name: str) -> bool:
    return "/" not in name and (name == ".htpasswd" or name.endswith(".acl"))


def _published(port: str) -> int | None:
    if port in _OFF:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise Refused(f"PUBLISH_PORT: {ascii(port)[:40]} is not a port, 1 to 65535")
    return int(port)


def _origins(text: str) -> tuple[str, ...]:
    """Origins of pages, or `*`, apart by spaces or commas."""
    origins = tuple(one.lower() for one in re.split(r"[\s,]+", text) if one)
    for one in origins:
        if not ORIGIN.fullmatch(one):
            raise Refused(
                f"CORS_ORIGINS: {ascii(one)[:80]} is not an origin such as https://example.com"
            )
    return origins
