"""A guard for the tests: on the guard's socket, it says what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from proxy.nginx import Proxy
from tests.proxy.app import App, Request, Wire

Verdict = tuple[str, tuple[str, ...], bytes]
"""Status, header lines, body."""

YES: Verdict = ("200 OK", (), b"")
NO: Verdict = ("401 Unauthorized", ('WWW-Authenticate: Basic realm="Forbidden!"',), b"who are you?")


def basic(request: Request) -> Verdict:
    """Lets in who says `Authorization: NAME`, for 10 s, and tells the app the name."""
    said = request.all("authorization")
    if not said:
        return NO
    name = said[0].removeprefix("Basic ")
    passes = (f"X-Identity: {name}", "X-Keep: 10", f"X-Pass: x-identity: {name}")
    return "200 OK", passes, b""


class Nobody:
    """Keeps no checker running: the test's own is asked."""

    async def start(self) -> None: ...

    async def leave(self) -> None: ...

    async def stop(self) -> None: ...


def unkept(proxy: Proxy) -> Proxy:
    """`proxy` without a checker of its own."""
    vars(vars(proxy)["_guarding"])["_keeper"] = Nobody()
    return proxy


@define
class Sentry(App):
    """Answers each check by `decide`; `asked` are the checks that came."""

    decide: Callable[[Request], Verdict] = basic
    asked: list[Request] = field(factory=list)

    def on_check(self, wire: Wire, request: Request) -> None:
        self.asked.append(request)
        status, headers, body = self.decide(request)
        wire.reply(body, *headers, status=status)

    def post(self, prefix: Path) -> Sentry:
        """Listen where nginx asks."""
        (prefix / "guard").mkdir(mode=0o711, exist_ok=True)
        self.listen_at(prefix / "guard" / "socket")
        return self
