"""The public keys of login services, fetched from where the operator says and kept for a while."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt
from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from proxy.guard.tokens import Key
from proxy.routes import ProxyError

LASTING = 300.0  # seconds that keys are good for
PAUSE = 30.0  # seconds between two questions, whatever keys are asked for
PATIENCE = 5  # seconds that an answer may take


class KeysUnreachable(ProxyError):
    """The keys could not be read; the text says why."""


@frozen
class _Known:
    keys: Mapping[str, Key]
    at: float
    why: str = ""


@define(eq=False)
class Keys:
    """One question at a time to each URL; what is known counts while it does not answer."""

    _known: dict[str, _Known] = field(factory=dict)
    _waiting: dict[str, list[Deferred[None]]] = field(factory=dict)

    async def find(self, url: str, token: str, now: float) -> Key | None:
        """The key that `token` names, `None` when there is none. Raises `KeysUnreachable`."""
        name = _named(token)
        known = self._known.get(url)
        if known is None or _is_old(known, name, now):
            await self._ask(url, now)
            known = self._known[url]
        if not known.keys and known.why:
            raise KeysUnreachable(f"{url}: {known.why}")
        if name is None and len(known.keys) == 1:
            return next(iter(known.keys.values()))
        return known.keys.get(name or "")

    async def _ask(self, url: str, now: float) -> None:
        """Returns when an answer is there, which many may wait for."""
        waiting: Deferred[None] = Deferred()
        self._waiting.setdefault(url, []).append(waiting)
        if len(self._waiting[url]) == 1:
            asking = deferToThread(_fetch, url)
            asking.addBoth(self._answered, url, now)
        await waiting

    def _answered(self, result: Any, url: str, now: float) -> None:
        """After a failure it is asked again soon; until then what was known counts."""
        if isinstance(result, Failure):
            before = self._known.get(url)
            keys = before.keys if before else {}
            self._known[url] = _Known(keys, now - LASTING + PAUSE, str(result.value)[:200])
        else:
            self._known[url] = _Known(result, now)
        for waiting in self._waiting.pop(url):
            if not waiting.called:
                waiting.callback(None)


def _is_old(known: _Known, name: str | None, now: float) -> bool:
    missing = name is not None and name not in known.keys
    return now - known.at > (PAUSE if missing and not known.why else LASTING)


def _named(token: str) -> str | None:
    try:
        name = jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _fetch(url: str) -> dict[str, Key]:
    """Keys for signatures, by their names. Blocks."""
    client = jwt.PyJWKClient(url, cache_keys=False, cache_jwk_set=False, timeout=PATIENCE)
    found = client.get_jwk_set().keys
    return {key.key_id or "": _usable(key) for key in found if key.public_key_use != "enc"}


def _usable(key: jwt.PyJWK) -> Key:
    """One of RSA is good for whatever the configuration names; PyJWT takes it for RS256's alone."""
    return key.key if key.key_type == "RSA" else key
