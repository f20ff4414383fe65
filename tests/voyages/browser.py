"""A headless browser, led through a pipe by the protocol of its developer tools."""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from attrs import define, field, frozen

from tests.voyages.harbour import DEADLINE, until

ARGV = (
    "chromium", "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
    "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-breakpad", "--ignore-certificate-errors",
    # Whatever else it would like to tell home.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost",
)  # fmt: skip
COOKIES_OF_ALL_SITES = 0  # what a server does not forbid, this browser sends
_PIPE = 'exec "$@" 3<&0 4>&1 5<"$0" </dev/null >/dev/null'  # it reads from 3 and writes to 4
_SOCKET = {"x86_64": 41, "aarch64": 198}  # the call's number
_NETLINK = 16


class NotDone(Exception):
    """The browser did not do as told; the text is its own."""


def deaf() -> bytes:
    """A filter of system calls: there are no sockets of netlink.

    A browser that hears of a new interface of the host gives up whatever it is asking for, and
    containers beside it come and go.
    """
    load, unless_equal, answer = 0x20, 0x15, 0x06
    no_such_family, allowed = 0x50000 | errno.EAFNOSUPPORT, 0x7FFF0000
    program = [
        (load, 0, 0, 0),
        (unless_equal, 0, 3, _SOCKET[os.uname().machine]),
        (load, 0, 0, 16),
        (unless_equal, 0, 1, _NETLINK),
        (answer, 0, 0, no_such_family),
        (answer, 0, 0, allowed),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in program)


@define
class Browser:
    """Chromium with a new profile below `home`. It knows no host but those of the loopback."""

    home: Path
    _process: subprocess.Popen[bytes] | None = None
    _unread: bytes = b""
    _visitors: list[str] = field(factory=list)
    _numbers: count[int] = field(factory=lambda: count(1))

    def __enter__(self) -> Browser:
        settings = self.home / "profile" / "Default" / "Preferences"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps({"profile": {"cookie_controls_mode": COOKIES_OF_ALL_SITES}}))
        calls = self.home / "calls"
        calls.write_bytes(deaf())
        argv = ["sh", "-c", _PIPE, str(calls), "bwrap", "--dev-bind", "/", "/", "--seccomp", "5"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*argv, *ARGV, f"--user-data-dir={self.home / 'profile'}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with self._process as process:
            try:
                self._process.stdin.close()  # it ends by itself when nobody leads it
                process.wait(DEADLINE)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                shutil.rmtree(self.home / "profile", ignore_errors=True)

    def visitor(self) -> Page:
        """An empty page of somebody who was nowhere before: no cookies, nothing kept."""
        context = self.tell("Target.createBrowserContext")["browserContextId"]
        self._visitors.append(context)
        asked = {"url": "about:blank", "browserContextId": context}
        target = self.tell("Target.createTarget", asked)["targetId"]
        asked = {"targetId": target, "flatten": True}
        return Page(self, self.tell("Target.attachToTarget", asked)["sessionId"])

    def see_off(self) -> None:
        """All visitors leave: an open page goes on working."""
        while self._visitors:
            context = self._visitors.pop()
            self.tell("Target.disposeBrowserContext", {"browserContextId": context})

    def tell(self, method: str, params: dict[str, Any] | None = None, session: str = "") -> Any:
        """What comes of one command. Raises `NotDone`."""
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": params or {}}
        command |= {"sessionId": session} if session else {}
        self._process.stdin.write(json.dumps(command).encode() + b"\0")
        end = time.monotonic() + DEADLINE
        while (said := self._next(end)).get("id") != number:
            pass
        if "error" in said:
            raise NotDone(f"{method}: {said['error']['message']}")
        return said["result"]

    def _next(self, end: float) -> dict[str, Any]:
        """The next message; most are news that nobody asked for."""
        assert self._process is not None
        assert self._process.stdout is not None
        while b"\0" not in self._unread:
            pipe = self._process.stdout.fileno()
            ready = select.select([pipe], [], [], max(0, end - time.monotonic()))[0]
            read = os.read(pipe, 65536) if ready else b""
            if not read:
                why = "the browser ended" if ready else "the browser says nothing"
                raise AssertionError(f"{why}:\n{self._log.read_text()[-3000:]}")
            self._unread += read
        text, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    @property
    def _log(self) -> Path:
        return self.home / "browser.log"


@frozen
class Page:
    """One tab, whose cookies no other has."""

    browser: Browser
    session: str

    def tell(self, method: str, **params: Any) -> Any:
        return self.browser.tell(method, params, self.session)

    def go(self, url: str) -> None:
        """Type `url` into the address bar."""
        failed = self.tell("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"

    def run(self, script: str) -> Any:
        """The value of `script` in the page; `None` when it was left meanwhile."""
        try:
            asked = {"expression": script, "awaitPromise": True, "returnByValue": True}
            found = self.tell("Runtime.evaluate", **asked)
        except NotDone:
            return None
        assert "exceptionDetails" not in found, f"{script}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def wait_for(self, script: str, what: str) -> Any:
        """The value of `script` as soon as it has one."""
        found = None

        def there() -> bool:
            nonlocal found
            found = self.run(script)
            return bool(found)

        try:
            until(there, what)
        except AssertionError as error:
            shown = self.run("location.href + '\\n' + document.documentElement.innerText")
            raise AssertionError(f"{error}, at {shown}") from None
        return found

    @property
    def cookies(self) -> dict[str, dict[str, Any]]:
        """All that would be sent to where it is, by name."""
        return {each["name"]: each for each in self.tell("Network.getCookies")["cookies"]}

    @property
    def history(self) -> list[str]:
        """The addresses that lie behind it, and its own."""
        return [each["url"] for each in self.tell("Page.getNavigationHistory")["entries"]]
