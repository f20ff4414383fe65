"""Who may do what over SSH: one table."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import paramiko
from twisted.trial.unittest import SynchronousTestCase

from tests.receiver.ssh_ship import Ship, make_key

Ask = Callable[[paramiko.Transport], object]

RANKS = ("nobody", "pusher", "captain", "admiral")
COMES_IN: Mapping[str, tuple[str, ...]] = {
    "git": ("pusher", "captain", "admiral"),
    "captain": ("captain", "admiral"),
    "admiral": ("admiral",),
    "update": ("admiral",),
    "root": (),
}
"""The account, and of which ranks the keys are that open it."""


def channel(kind: str, to: tuple[str, int] = ("127.0.0.1", 1)) -> Ask:
    return lambda transport: transport.open_channel(kind, to, ("127.0.0.1", 1))


def in_session(ask: Callable[[paramiko.Channel], object]) -> Ask:
    return lambda transport: ask(transport.open_session())


def variable(name: str, value: str) -> Ask:
    def ask(session: paramiko.Channel) -> None:
        message = paramiko.Message()
        message.add_byte(bytes((98,)))
        message.add_int(session.remote_chanid)
        message.add_string("env")
        message.add_boolean(True)
        message.add_string(name)
        message.add_string(value)
        session._event_pending()
        session.transport._send_user_message(message)
        session._wait_for_event()

    return in_session(ask)


WHOLE = ("admiral",)
EVERY = ("git", "captain", "admiral", "update")
NONE: tuple[str, ...] = ()
HAS: Mapping[str, tuple[Ask, tuple[str, ...]]] = {
    "a command": (in_session(lambda session: session.exec_command("help")), EVERY),
    "a shell request": (in_session(lambda session: session.invoke_shell()), EVERY),
    "a terminal": (in_session(lambda session: session.get_pty()), WHOLE),
    "sftp": (in_session(lambda session: session.invoke_subsystem("sftp")), WHOLE),
    "X11": (in_session(lambda session: session.request_x11()), NONE),
    "LANG": (variable("LANG", "C.UTF-8"), WHOLE),
    "LC_TIME": (variable("LC_TIME", "de_DE.UTF-8@euro"), WHOLE),
    "a LANG that is a path": (variable("LANG", "../x"), NONE),
    "LD_PRELOAD": (variable("LD_PRELOAD", "x"), NONE),
    "TERM": (variable("TERM", "xterm"), NONE),
    "GIT_PROTOCOL": (variable("GIT_PROTOCOL", "version=2"), ("git", "captain", "update")),
    "a port of the ship's": (lambda each: each.request_port_forward("127.0.0.1", 0), WHOLE),
    "direct-streamlocal": (channel("direct-streamlocal@openssh.com"), NONE),
    "forwarded-tcpip": (channel("forwarded-tcpip"), NONE),
    "auth-agent": (channel("auth-agent@openssh.com"), NONE),
    "tun": (channel("tun@openssh.com"), NONE),
    "x11 channel": (channel("x11"), NONE),
}
"""What a client asks, and the accounts that have it."""


class Who(SynchronousTestCase):
    ship: ClassVar[Ship]
    keys: ClassVar[dict[str, Path]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.ship = Ship()
        cls.keys = {
            "nobody": make_key(cls.ship.root / "nobody"),
            "pusher": cls.ship.admit("pia", below="pushers"),
            "captain": cls.ship.admit("cat", below="captains"),
            "admiral": cls.ship.alice,
        }

    @classmethod
    def tearDownClass(cls) -> None:
        cls.ship.close()

    def test_who_comes_in(self) -> None:
        """No key opens nothing, a pusher's `git`, a captain's `captain` too, an admiral's all."""
        for account, ranks in COMES_IN.items():
            for rank in RANKS:
                with self.subTest(account=account, rank=rank):
                    ran = self.ship.run("help", key=self.keys[rank], account=account)
                    self.assertEqual(ran.returncode != 255, rank in ranks)
                    self.assertEqual(b"Permission denied" in ran.stderr, rank not in ranks)

    def test_what_each_account_has(self) -> None:
        """Which account answers to which channel and request, asked with an admiral's key."""
        for account in EVERY:
            for what, (ask, accounts) in HAS.items():
                with self.subTest(account=account, what=what):
                    self.assertEqual(self.has(account, ask), account in accounts)

    def has(self, account: str, ask: Ask) -> bool:
        with self.ship.paramiko(account) as transport:
            try:
                ask(transport)
            except paramiko.SSHException:
                return False
            return True

    def test_forwarding(self) -> None:
        """Only `admiral` has connections made; the others are told that it is forbidden."""
        to = ("127.0.0.1", self.ship.port)
        for account in EVERY:
            with self.subTest(account=account), self.ship.paramiko(account) as transport:
                if account == "admiral":
                    transport.open_channel("direct-tcpip", to, to).close()
                    continue
                with self.assertRaisesRegex(paramiko.ChannelException, "prohibited"):
                    transport.open_channel("direct-tcpip", to, to)

    def test_no_agent_but_for_admirals(self) -> None:
        """A request to forward the agent is heard by `admiral` alone."""
        for account in EVERY:
            with self.ship.paramiko(account) as transport:
                session = transport.open_session()
                message = paramiko.Message()
                message.add_byte(bytes((98,)))
                message.add_int(session.remote_chanid)
                message.add_string("auth-agent-req@openssh.com")
                message.add_boolean(True)
                session._event_pending()
                transport._send_user_message(message)
                try:
                    session._wait_for_event()
                except paramiko.SSHException:
                    self.assertNotEqual(account, "admiral")
                else:
                    self.assertEqual(account, "admiral")
