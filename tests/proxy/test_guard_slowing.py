"""How guessing is slowed, and who is not slowed by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import DeferredList
from twisted.trial.unittest import SynchronousTestCase, TestCase

from proxy.guard.passwords import Passwords
from proxy.guard.slowing import FREE, LONGEST, MOST, WINDOW, Slowing
from proxy.protection import LdapServer, Protection
from tests.proxy.asking import ANN, CREW, Asking, basic, guarding, header

RIGHT, WRONG = basic("ann", "ann's"), basic("ann", "wrong")


class SlowTests(SynchronousTestCase):
    """Guessing by itself: what has to wait, and for how long."""

    def setUp(self) -> None:
        self.slowing = Slowing()

    def failed(
        self, count: int, address: str = "10.0.0.1", user: str = "ann", at: float = 0
    ) -> None:
        for _ in range(count):
            self.slowing.failed(address, "/a", user, at)

    def wait(self, address: str = "10.0.0.1", user: str = "ann", at: float = 0) -> float:
        return self.slowing.wait(address, "/a", user, at)

    def test_it_doubles(self) -> None:
        """The first failures cost nothing, then each wait is twice the last, up to a bound."""
        waits = []
        for _ in range(FREE + 20):
            waits.append(self.wait())
            self.failed(1)
        self.assertEqual(waits[: FREE + 6], [0.0] * FREE + [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST])
        self.assertEqual(max(waits), LONGEST)
        self.assertEqual(self.wait(at=LONGEST - 1), 1.0)
        self.assertEqual(self.wait(at=LONGEST), 0.0)

    def test_it_is_forgotten(self) -> None:
        """A minute without a failure, and it begins anew."""
        self.failed(FREE + 5)
        self.assertEqual(self.wait(at=WINDOW), 0.0)
        self.failed(1, at=WINDOW)
        self.assertEqual(self.wait(at=WINDOW), 0.0)

    def test_an_address_for_all_names(self) -> None:
        """Who tries one password with many names waits as well."""
        for number in range(FREE):
            self.failed(1, user=f"user{number}")
        self.assertEqual(self.wait(user="another"), 1.0)

    def test_a_name_from_many_addresses(self) -> None:
        """A name that many guess at waits wherever somebody has failed, and only there: its owner
        is not locked out, either for having mistyped it an hour ago."""
        self.failed(1, "192.0.2.1", at=-3600)
        for number in range(FREE + 3):
            self.failed(1, f"10.0.{number}.1")
        self.assertEqual(self.wait("10.0.1.1"), 8.0)
        self.assertEqual(self.wait("192.0.2.7"), 0.0)
        self.assertEqual(self.wait("192.0.2.1"), 0.0)

    def test_networks(self) -> None:
        """Of IPv6 a whole /64 is one address; an address of IPv4 is itself, however it is
        written."""
        self.failed(FREE, "2001:db8::1")
        self.assertEqual(self.wait("2001:db8::ffff:1", "bob"), 1.0)
        self.assertEqual(self.wait("2001:db8:0:1::1", "bob"), 0.0)
        self.failed(FREE, "::ffff:192.0.2.1")
        self.assertEqual(self.wait("192.0.2.1", "bob"), 1.0)
        self.assertEqual(self.wait("::ffff:192.0.2.2", "bob"), 0.0)
        self.failed(FREE, "unix:")
        self.assertEqual(self.wait("unix:", "bob"), 1.0)

    def test_bounded_memory(self) -> None:
        """However many try, what is remembered of them is bounded, and who goes on is not
        forgotten for it."""
        for number in range(MOST):
            self.failed(1, user=f"user{number}")
        self.assertLessEqual(len(self.slowing._failed), MOST)
        self.assertEqual(self.wait(), LONGEST)

    def test_right_ones_are_bounded_too(self) -> None:
        """Of passwords that were right a bounded number is remembered, by digests."""
        passwords, users = Passwords(), {"ann": ANN}
        for number in range(10_050):
            passwords.remember(users, "ann", str(number))
        self.assertEqual(len(passwords._right), 10_000)
        self.assertFalse(passwords.known(users, "ann", "0"))
        self.assertTrue(passwords.known(users, "ann", "10049"))
        self.assertNotIn(b"10049", b"".join(passwords._right))


class GuessingTests(TestCase):
    async def fails(self, asking: Asking, most: int, **how: Any) -> int:
        """How many guesses in a row are looked at."""
        for count in range(most):
            if (await asking.ask(WRONG, **how)).status == 429:
                return count
        return most

    async def test_who_fails_often_has_to_wait(self) -> None:
        """After some failures the answer is a 429 that says how long; a right password is not
        looked at before that, and is afterwards."""
        asking = guarding(CREW)
        self.assertEqual(await self.fails(asking, 20), FREE - 1)
        answer = await asking.ask(RIGHT)
        self.assertEqual((answer.status, header(answer, "Retry-After")), (429, "2"))
        asking.now += 2
        self.assertEqual((await asking.ask(RIGHT)).status, 200)

    async def test_who_is_known_does_not_wait(self) -> None:
        """A password that was right before is let in while others guess from the same address;
        so is everybody elsewhere."""
        asking = guarding(CREW)
        self.assertEqual((await asking.ask(RIGHT)).status, 200)
        await self.fails(asking, 20)
        self.assertEqual((await asking.ask(RIGHT)).status, 200)
        bob = basic("bob", "bob's")
        self.assertEqual((await asking.ask(bob)).status, 429)
        self.assertEqual((await asking.ask(bob, address="10.9.9.9")).status, 200)

    async def test_guessing_in_a_burst(self) -> None:
        """A hundred guesses at once are not a hundred chances, of a hash or of a directory."""
        looked: list[str] = []

        def verify(server: LdapServer, user: str, password: str) -> bool:
            looked.append(password)
            return False

        servers = {"ours": LdapServer("ldap://ours/", "asker", "x")}
        by_hash, by_directory = (
            guarding(CREW),
            guarding(Protection("ldap", ldap="ours"), ldap_servers=servers, verify=verify),
        )
        check: Callable[..., bool] = by_hash.checker._passwords.check

        def counted(*what: Any) -> bool:
            looked.append(what[2])
            return check(*what)

        self.patch(by_hash.checker._passwords, "check", counted)
        for asking in (by_hash, by_directory):
            looked.clear()
            guesses = [asking.ask(basic("ann", f"guess {number}")) for number in range(100)]
            answers = await DeferredList(guesses)
            self.assertEqual({answer.status for _, answer in answers} - {401, 429}, set())
            self.assertLessEqual(len(looked), FREE + 8)

    async def test_no_password_is_logged(self) -> None:
        """A login that failed is logged by name and address; what was sent is not."""
        lines: list[str] = []
        asking = guarding(CREW)
        log = type("Log", (), {"warn": lambda _, text, **told: lines.append(text.format(**told))})()
        asking.checker._log = log
        await asking.ask(basic("ann\u00eb", "5ecret"))
        self.assertEqual(len(lines), 1)
        self.assertIn("10.0.0.1", lines[0])
        self.assertTrue(lines[0].isascii())
        self.assertNotIn("5ecret", lines[0])
