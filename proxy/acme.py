"""Certificates by ACME: which names need one, and getting them without holding anything up."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, ParamSpec, TypeVar

from attrs import asdict, frozen
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.threads import deferToThreadPool

from proxy.authority import AcmeError, Authority, new_key
from proxy.certificates import Certificate, load, read, save, write_private
from proxy.routes import HOST, ProxyError

P = ParamSpec("P")
T = TypeVar("T")

LETSENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
MAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255}")
SERVER = re.compile(r"https://[!-~]{1,1000}")
# No authority on the internet gives certificates for these.
PRIVATE = (
    "localhost", "local", "internal", "lan", "home", "corp", "test", "example", "invalid", "onion",
    "arpa",
)  # fmt: skip

AT_ONCE = 4
FIRST_PAUSE = 900.0  # seconds after a failure, four times as long after the next
LONGEST_PAUSE = 12 * 3600.0


@frozen
class Failure:
    """How often in a row a name failed, when last (epoch seconds), and why."""

    count: int
    at: float
    why: str

    @property
    def again(self) -> float:
        """When the next attempt may be. Authorities count failures, and lock out who has many."""
        return self.at + min(LONGEST_PAUSE, FIRST_PAUSE * 4.0 ** min(self.count - 1, 10))


def public(host: str) -> bool:
    """Whether an authority could give a certificate for `host` by http-01."""
    _, dot, last = host.rpartition(".")
    return bool(dot and HOST.fullmatch(host)) and last not in PRIVATE and not last.isdigit()


def due(
    wanted: Iterable[str],
    stored: Mapping[str, Certificate],
    failures: Mapping[str, Failure],
    now: float,
) -> list[str]:
    """The `wanted` names to be asked for now: without a certificate, or with one that ends soon."""
    return [
        name
        for name in sorted(set(wanted))
        if public(name)
        and (name not in stored or stored[name].renewal <= now)
        and (name not in failures or failures[name].again <= now)
    ]


class Acme:
    """Gets and renews certificates, one for each host name, for the account of `email`.

    The account's key, the certificates and what failed are kept in `directory`. nginx serves what
    is in `challenges` below /.well-known/acme-challenge/. `roots` (PEM) are what `server` is
    verified by. To use this is to agree to the authority's terms. Raises `AcmeError`.
    """

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        challenges: Path,
        *,
        email: str,
        server: str = LETSENCRYPT,
        roots: Path | None = None,
    ) -> None:
        if not MAIL.fullmatch(email):
            raise AcmeError(f"{email[:80]!r} is no e-mail address that an authority would take")
        if not SERVER.fullmatch(server):
            raise AcmeError(f"{server[:80]!r} is no https:// URL of an ACME directory")
        self._reactor = reactor
        self._directory = directory
        self._challenges = challenges
        self._authority = Authority(server, email, roots, directory / "account.key")
        self._places = DeferredSemaphore(AT_ONCE)
        self._turn = DeferredLock()

    async def certificates(self, names: Iterable[str]) -> dict[str, Certificate]:
        """Those of `names` that are kept, expired ones too."""
        return await self._aside(_all, load_certificate, self._directory, list(names))

    async def failures(self, names: Iterable[str]) -> dict[str, Failure]:
        """Those of `names` that failed when last asked for."""
        return await self._aside(_all, load_failure, self._directory, list(names))

    async def certificate(self, name: str) -> Certificate:
        """A new certificate for `name`, which is kept; until then the old one is."""
        if not HOST.fullmatch(name):
            raise AcmeError(f"{name[:80]!r} is no host name in lower case")
        async with self._places:
            over = Event()
            try:
                return await self._aside(self._obtain, name, over)
            finally:
                over.set()  # the thread of a cancelled one ends with its request

    async def renew(
        self, wanted: Iterable[str], now: float, got: Callable[[str, Certificate], None]
    ) -> dict[str, str]:
        """Get what is due of `wanted`, some at a time, and tell `got` each as it comes.

        Returns why for each name that failed this time; it is left alone for a growing while.
        """
        wanted = sorted({name for name in wanted if public(name)})
        async with self._turn:
            stored, failures = await self.certificates(wanted), await self.failures(wanted)
            names = due(wanted, stored, failures, now)
            tries = [Deferred.fromCoroutine(self._try(name, got)) for name in names]
            try:
                said = {name: await each for name, each in zip(names, tries, strict=True)}
            finally:
                for each in tries:
                    each.addErrback(lambda _: None)
                    each.cancel()
        return {name: why for name, why in said.items() if why}

    async def _try(self, name: str, got: Callable[[str, Certificate], None]) -> str:
        try:
            certificate = await self.certificate(name)
        except AcmeError as error:
            return str(error)
        got(name, certificate)
        return ""

    def _aside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, work, *args, **kwargs)

    def _obtain(self, name: str, over: Event) -> Certificate:
        earlier = load_failure(self._directory, name)
        try:
            # Where there is no room to keep what comes of it, nobody is asked again and again.
            self._note(
                name, _next(earlier, f"no certificate for {name}: its order did not come to an end")
            )
            certificate = self._ordered(name, over)
            self._note(name, None)
        except (ProxyError, OSError) as error:
            why = f"no certificate for {name}: {error}"
            with suppress(OSError):
                self._note(name, earlier if over.is_set() else _next(earlier, why))
            raise AcmeError(why) from error
        return certificate

    def _note(self, name: str, failure: Failure | None) -> None:
        file = self._directory / f"{name}.failed"
        if failure is None:
            file.unlink(missing_ok=True)
        else:
            write_private(file, json.dumps(asdict(failure)).encode())

    def _ordered(self, name: str, over: Event) -> Certificate:
        key = new_key()
        chain = self._authority.order(name, key, self._challenges, over)
        certificate = read(chain, key, "what the authority gave")
        if not certificate.covers(name):
            raise AcmeError("what the authority gave is not for it")
        save(self._directory / f"{name}.pem", certificate)
        return certificate


def _next(earlier: Failure | None, why: str) -> Failure:
    return Failure(earlier.count + 1 if earlier else 1, time.time(), why)


def load_certificate(directory: Path, name: str) -> Certificate | None:
    return load(directory / f"{name}.pem")


def load_failure(directory: Path, name: str) -> Failure | None:
    try:
        return Failure(**json.loads((directory / f"{name}.failed").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _all(
    load: Callable[[Path, str], T | None], directory: Path, names: Iterable[str]
) -> dict[str, T]:
    found = {name: load(directory, name) for name in names}
    return {name: each for name, each in found.items() if each is not None}
