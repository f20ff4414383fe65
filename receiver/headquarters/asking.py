"""Asking a repository which commits its refs name, in the cheapest way that it allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from hooks.errors import Unreachable
from hooks.repository import Repository
from receiver.headquarters.connections import Connections
from receiver.headquarters.git import RemoteGit, upload_pack
from receiver.headquarters.https import Https
from receiver.headquarters.refs import Found, answers, asked, listed
from receiver.headquarters.source import source_of_operator
from receiver.headquarters.ssh import host_of
from receiver.headquarters.turns import Turns

SECONDS = 15.0
AGAIN = 600.0  # seconds until a server that needed git itself is asked the cheap way again
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def nobodys(url: str) -> Repository | None:
    """No URL is this ship's own."""
    return None


@define
class Asking:
    """`own` knows the URLs that mean a repository of this ship, which is read where it lies.

    https servers that speak version 2 are asked over kept-alive connections, all else by git, which
    shares one login to each ssh host.
    """

    reactor: Any
    git: RemoteGit
    own: Callable[[str], Repository | None] = nobodys
    seconds: float = field(default=SECONDS, kw_only=True)
    _turns: Turns = field(factory=Turns, init=False)
    _https: Https | None = field(default=None, init=False)
    _connections: Connections = field(init=False)
    _by_git_until: dict[str, float] = field(factory=dict, init=False)
    _answers: Counter[str] = field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        self._connections = Connections(self.reactor, self.git.layout, self.git.path)

    async def ask(self, url: str, refs: Collection[str]) -> dict[str, str | None]:
        """The commit of each of `refs`: "" (the default branch), a branch, a tag, or a full id.

        Branches before tags. `None` where there is none of that name. Raises `Unreachable`, and
        `Refused` for a URL that is none.
        """
        names = asked(refs)
        if not names:
            return answers(refs, {})
        source_of_operator(url, "the repository")
        async with self._turns.turn(host := host_of(url)):
            found = await self._in_time(url, host, names)
        return answers(refs, found)

    async def close(self) -> None:
        """End what is kept open between questions."""
        await self._connections.close()
        if self._https is not None:
            await self._https.close()

    async def _in_time(self, url: str, host: str, names: list[str]) -> Found:
        """A host that says nothing while the time runs out has one question out at a time.

        That ends when it answers. One repository that hangs does not make its host a silent one.
        """
        late, heard = False, self._answers[host]

        def stop() -> None:
            nonlocal late
            late = True
            asking.cancel()

        asking = Deferred.fromCoroutine(self._found(url, names))
        timer = self.reactor.callLater(self.seconds, stop)
        try:
            found = await asking
        except CancelledError:
            asking.cancel()
            if not late:
                raise
            if self._answers[host] == heard:
                self._turns.silent.add(host)
            raise Unreachable(f"cannot read {url}: no answer within {self.seconds:g} s") from None
        finally:
            if timer.active():
                timer.cancel()
        self._answers[host] += 1
        self._turns.silent.discard(host)
        return found

    async def _found(self, url: str, names: list[str]) -> Found:
        if not self._may_be_cheap(url):
            return await self._by_git(url, names)
        try:
            return await _cancellable(self._cheap().ask(url, names))
        except CancelledError:
            raise
        except Exception:
            found = await self._by_git(url, names)
            self._by_git_until[url] = self.reactor.seconds() + AGAIN
            return found

    def _may_be_cheap(self, url: str) -> bool:
        proxied = any(name in self.git.extra for name in _PROXIES)
        return (
            url.startswith("https://")
            and not proxied
            and self.own(url) is None
            and self._by_git_until.get(url, 0.0) <= self.reactor.seconds()
        )

    def _cheap(self) -> Https:
        if self._https is None:
            roots = self.git.extra.get("GIT_SSL_CAINFO")
            self._https = Https(self.reactor, Path(roots) if roots else None)
        return self._https

    async def _by_git(self, url: str, names: list[str]) -> Found:
        mine = self.own(url)
        place = str(mine.path) if mine else url
        peeled = [f"{name}^{{}}" for name in names]
        words = ["ls-remote", "--quiet", *upload_pack(place), "--end-of-options", place]
        by = self._connections.options(place)
        said = await self.git(place, [*words, *names, *peeled], seconds=self.seconds, by=by)
        self._connections.keep(place)
        return listed(said.decode("utf-8", "replace"))


def _cancellable(work: Coroutine[Any, Any, Found]) -> Deferred[Found]:
    """`work`; cancelling it is a `CancelledError`, not what a request makes of that."""
    cancelled = False

    def cancel(_: Deferred[Found]) -> None:
        nonlocal cancelled
        cancelled = True
        inner.cancel()

    def fail(failure: Failure) -> None:
        if not cancelled:
            outer.errback(failure)

    outer: Deferred[Found] = Deferred(cancel)
    inner = Deferred.fromCoroutine(work)
    inner.addCallbacks(outer.callback, fail)
    return outer
