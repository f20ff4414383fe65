"""Certificates by ACME, from a real ACME server."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from acme import messages
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as some
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

import proxy.acme as acme_module
from proxy.acme import Acme, Failure, due, public
from proxy.authority import AcmeError, Authority, plain, reason
from proxy.certificates import Certificate, self_made
from tests.ports import free_port
from tests.proxy.authority import NEEDED, Pebble, Shown, served
from tests.proxy.reactor import reactor, until
from tests.proxy.test_certificates import P256, signed

DAY = 86400.0
NOW = 1_800_000_000.0


class DueTests(SynchronousTestCase):
    def test_what_is_due(self) -> None:
        """A name is due without a certificate, or 30 days before the end of it."""
        stored = {
            "fresh.net": self_made(["fresh.net"], NOW - 59 * DAY, 90),
            "ending.net": self_made(["ending.net"], NOW - 61 * DAY, 90),
            "days.net": self_made(["days.net"], NOW - 3 * DAY, 6),
            "unwanted.net": self_made(["unwanted.net"], NOW - 90 * DAY, 90),
        }
        wanted = ["new.net", "new.net", "fresh.net", "ending.net", "days.net"]
        self.assertEqual(due(wanted, stored, {}, NOW), ["ending.net", "new.net"])
        later = due(wanted, stored, {}, NOW + 2 * DAY)
        self.assertEqual(later, ["days.net", "ending.net", "fresh.net", "new.net"])

    def test_a_failing_name_gets_pauses(self) -> None:
        """A name that fails is asked for five times in a day at first, and then twice a day."""
        failures: dict[str, Failure] = {}
        tries = []
        for hour in range(0, 72 * 4):
            now = NOW + hour * 900
            if due(["a.net"], {}, failures, now):
                tries.append(hour / 4)
                failures["a.net"] = Failure(len(tries), now, "DNS")
        self.assertEqual(tries, [0, 0.25, 1.25, 5.25, 17.25, 29.25, 41.25, 53.25, 65.25])
        self.assertTrue(due(["a.net"], {}, {"a.net": Failure(10**6, NOW, "")}, NOW + DAY / 2))

    def test_only_public_names(self) -> None:
        """No authority is bothered with names that it cannot reach."""
        for host in ("example.com", "a.b.example.co.uk", "x-1.starphleet.io"):
            self.assertTrue(public(host), host)
        for host in (
            *("localhost", "ship", "a.localhost", "box.local", "10.0.0.1", "a.test", "::1"),
            *("*.example.com", "A.example.com", "a..com", "", ".com", "a.com.", "a\n.com"),
        ):
            self.assertFalse(public(host), host)


class WordsTests(SynchronousTestCase):
    @given(some.text())
    def test_one_line(self, text: str) -> None:
        """What an authority says becomes one bounded line that moves no cursor."""
        line = plain(text)
        self.assertTrue(line.isprintable())
        self.assertLessEqual(len(line), 400)

    def test_reasons(self) -> None:
        """An authority's problem is told by its details, those of its parts included."""
        part = {"type": "x", "detail": "b.net is on a list"}
        for problem, said in (
            ({"type": "x", "detail": "no", "subproblems": [part]}, "no; b.net is on a list"),
            ({"type": "urn:ietf:params:acme:error:caa"}, "CAA"),
            ({"type": "odd:thing"}, "odd:thing"),
        ):
            self.assertIn(said, reason(messages.Error.from_json(problem)))
        self.assertEqual(reason(ValueError("broken")), "ValueError: broken")

    def test_settings(self) -> None:
        """An address or URL that cannot be is refused in one line at once."""
        here = Path("/nowhere")
        for email, server, why in (
            ("me", "https://a/dir", "'me' is no e-mail address"),
            ("a@b.net\nBcc: x", "https://a/dir", "is no e-mail address"),
            ("a@b.net", "http://a/dir", "'http://a/dir' is no https:// URL"),
            ("a@b.net", "https://a/ b", "is no https:// URL"),
        ):
            with self.assertRaisesRegex(AcmeError, why):
                Acme(reactor, here, here, email=email, server=server)


class GivenTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="acme-"))
        self.addCleanup(shutil.rmtree, self.directory)

    async def test_what_does_not_fit_is_not_kept(self) -> None:
        """A certificate for another key, another name or none at all is an error, not kept."""
        acme = Acme(reactor, self.directory, self.directory, email="a@b.net", server="https://x/")
        for make, why in (
            (lambda key: signed(P256, "one.net"), "the key does not belong"),
            (lambda key: signed(load_pem_private_key(key, None), "other.net"), "is not for it"),
            (lambda key: b"", "is not valid PEM"),
        ):
            self.patch(Authority, "order", lambda _, name, key, *__, make=make: make(key))
            with self.assertRaisesRegex(AcmeError, f"no certificate for one.net: .*{why}"):
                await acme.certificate("one.net")
        self.assertEqual([each.name for each in self.directory.iterdir()], ["one.net.failed"])
        self.assertEqual((await acme.failures(["one.net"]))["one.net"].count, 3)

    async def test_no_order_that_could_not_be_kept(self) -> None:
        """While the disk is full no authority is asked: it would give again and again, and then
        not for a week."""
        acme = Acme(reactor, self.directory, self.directory, email="a@b.net", server="https://x/")
        ordered: list[str] = []

        def order(_: object, name: str, key: bytes, *__: object) -> bytes:
            ordered.append(name)
            return signed(load_pem_private_key(key, None), name)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(Authority, "order", order)
        patches = [self.patch(acme_module, name, full) for name in ("write_private", "save")]
        for _ in range(2):
            refused = await acme.renew(["one.net", "two.net"], time.time(), lambda *_: None)
            self.assertEqual(sorted(refused), ["one.net", "two.net"])
            self.assertIn("No space left", refused["one.net"])
        self.assertEqual(ordered, [])
        for each in patches:
            each.restore()
        self.assertEqual(await acme.renew(["one.net"], time.time(), lambda *_: None), {})
        self.assertEqual(ordered, ["one.net"])
        self.assertEqual(await acme.failures(["one.net"]), {})


class AcmeTests(TestCase):
    timeout = 120.0

    def setUp(self) -> None:
        if not all(map(shutil.which, NEEDED)):
            raise SkipTest("pebble is not installed")
        self.root = Path(tempfile.mkdtemp(prefix="acme-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.shown = Shown(self.root / "challenges")
        port = served(self.shown)
        self.addCleanup(port.stopListening)
        self.pebble = Pebble(self.root, port.getHost().port)

    async def acme(self, **env: str) -> Acme:
        self.addCleanup(self.pebble.stop)
        await self.pebble.start(**env)
        return self.client()

    def client(self, **options: Any) -> Acme:
        given = {
            "email": "us@example.net",
            "server": self.pebble.server,
            "roots": self.pebble.roots,
        }
        directory, challenges = self.root / "kept", self.root / "challenges"
        return Acme(reactor, directory, challenges, **{**given, **options})

    def accounts(self) -> int:
        """How many accounts the authority has made."""
        return len(re.findall(r"There are now \d+ accounts", self.pebble.said))

    async def test_issue_and_renew(self) -> None:
        """A name gets a certificate, which is kept for its owner alone; then it gets another."""
        acme = await self.acme()
        first = await acme.certificate("one.starphleet.net")
        self.assertEqual(first.names, ("one.starphleet.net",))
        self.assertGreaterEqual(first.chain.count(b"BEGIN CERTIFICATE"), 2)
        self.assertEqual(
            await acme.certificates(["one.starphleet.net", "x"]), {first.names[0]: first}
        )
        second = await acme.certificate("one.starphleet.net")
        self.assertNotEqual(second.key, first.key)
        self.assertEqual(await acme.certificates(first.names), {first.names[0]: second})
        self.assertEqual(self.shown.asked[0], "one.starphleet.net")
        self.assertEqual(list((self.root / "challenges").iterdir()), [])
        for file in (self.root / "kept").iterdir():
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600, file)

    async def test_one_account(self) -> None:
        """The next ship on the same directory has the same account, with its address of now."""
        acme = await self.acme()
        await acme.certificate("one.starphleet.net")
        again = self.client(email="them@example.net")
        await again.certificate("two.starphleet.net")
        self.assertEqual(self.accounts(), 1, self.pebble.said)

    async def test_two_at_once(self) -> None:
        """Several names are asked for at once, by one account, and each is told as it comes."""
        acme = await self.acme()
        got: dict[str, Certificate] = {}
        names = [f"n{number}.starphleet.net" for number in range(5)]
        failed = await acme.renew([*names, "n1.localhost"], time.time(), got.__setitem__)
        self.assertEqual(failed, {})
        self.assertEqual(await acme.certificates(names), got)
        self.assertEqual(set(got), set(names))
        self.assertEqual(self.accounts(), 1, self.pebble.said)
        self.assertEqual(await acme.renew(names, time.time(), got.__setitem__), {})
        self.assertEqual(len(self.shown.asked), len(set(self.shown.asked)) * 3)

    async def test_refused(self) -> None:
        """A name that is not ours fails with the authority's reason; the old one stays."""
        acme = await self.acme()
        old = await acme.certificate("one.starphleet.net")
        (self.root / "kept" / "account.key").unlink()
        acme = self.client()  # of another account: pebble may believe what it saw of the first
        self.shown.directory = self.root / "elsewhere"
        later = old.expires - DAY
        failed = await acme.renew(old.names, later, self.never)
        why = failed["one.starphleet.net"]
        self.assertRegex(why, r"^no certificate for one.starphleet.net: .*404.*")
        self.assertTrue(why.isprintable())
        self.assertEqual(await acme.certificates(old.names), {old.names[0]: old})
        noted = (await self.client().failures(old.names))["one.starphleet.net"]
        self.assertEqual((noted.count, noted.why), (1, why))
        self.shown.directory = self.root / "challenges"
        await acme.certificate("one.starphleet.net")
        self.assertEqual(await acme.failures(old.names), {})

    async def test_a_failure_holds_nobody_up(self) -> None:
        """A name that fails is left alone for a while, and costs the others nothing."""
        acme = await self.acme()
        got: dict[str, Certificate] = {}
        await acme.certificate("good.starphleet.net")
        self.shown.directory = self.root / "elsewhere"
        for _ in range(3):
            await acme.renew(["bad.starphleet.net"], time.time(), self.never)
        self.assertEqual(
            (await acme.failures(["bad.starphleet.net"]))["bad.starphleet.net"].count, 1
        )
        self.shown.directory = self.root / "challenges"
        names = ["bad.starphleet.net", "good.starphleet.net", "new.starphleet.net"]
        self.assertEqual(await acme.renew(names, time.time(), got.__setitem__), {})
        self.assertEqual(set(got), {"new.starphleet.net"})

    def never(self, name: str, certificate: Certificate) -> None:
        self.fail(f"{name} got a certificate")

    async def test_stale_nonces(self) -> None:
        """An authority that refuses every other nonce is asked again."""
        acme = await self.acme(PEBBLE_WFE_NONCEREJECT="50")
        await acme.certificate("one.starphleet.net")

    async def test_reused_authorization(self) -> None:
        """What the authority knows already it is not shown again."""
        acme = await self.acme(PEBBLE_AUTHZREUSE="100")
        await acme.certificate("one.starphleet.net")
        asked = len(self.shown.asked)
        await acme.certificate("one.starphleet.net")
        self.assertEqual(len(self.shown.asked), asked)

    async def test_slow_authority(self) -> None:
        """One that takes its time is waited for."""
        acme = await self.acme(PEBBLE_VA_NOSLEEP="", PEBBLE_VA_SLEEPTIME="3")
        await acme.certificate("one.starphleet.net")

    async def test_lost_account(self) -> None:
        """An authority that has forgotten the account gets a new one at the next attempt."""
        acme = await self.acme()
        await acme.certificate("one.starphleet.net")
        await self.pebble.stop()
        await self.pebble.start()
        with self.assertRaisesRegex(AcmeError, "account"):
            await acme.certificate("one.starphleet.net")
        await acme.certificate("one.starphleet.net")

    async def test_cancelled(self) -> None:
        """One that is cancelled ends at once, and leaves neither certificate nor file."""
        acme = await self.acme(PEBBLE_VA_NOSLEEP="", PEBBLE_VA_SLEEPTIME="60")
        challenges = self.root / "challenges"
        names = ["one.starphleet.net", "two.starphleet.net"]
        renewal = Deferred.fromCoroutine(acme.renew(names, time.time(), self.never))
        await until(
            lambda: challenges.exists() and len([*challenges.iterdir()]) == 2, "two challenges"
        )
        renewal.cancel()
        with self.assertRaises(CancelledError):
            await renewal
        await until(lambda: not any(challenges.iterdir()), "the challenge to go")
        self.assertEqual([file.name for file in (self.root / "kept").iterdir()], ["account.key"])

    async def test_nobody_there(self) -> None:
        """A server that does not listen, or is not the one, is named with the reason."""
        await self.acme()
        for client, why in (
            (self.client(server=f"https://127.0.0.1:{free_port()}/dir"), "Connection refused"),
            (self.client(roots=None), "certificate verify failed"),
            (self.client(server=self.pebble.server[:-3] + "x"), "ClientError"),
        ):
            with self.assertRaisesRegex(AcmeError, f"one.starphleet.net: .*{why}"):
                await client.certificate("one.starphleet.net")

    async def test_no_environment(self) -> None:
        """Proxies and passwords of whoever started the ship are not the authority's business."""
        acme = await self.acme()
        nowhere = f"http://127.0.0.1:{free_port()}"
        with patch.dict(os.environ, HTTPS_PROXY=nowhere, REQUESTS_CA_BUNDLE="/dev/null"):
            await acme.certificate("one.starphleet.net")

    async def test_damaged_account_key(self) -> None:
        """A key of the account that cannot be read is named, and never replaced."""
        acme = await self.acme()
        key = self.root / "kept" / "account.key"
        key.parent.mkdir()
        for content in (b"", b"nonsense"):
            key.write_bytes(content)
            with self.assertRaisesRegex(AcmeError, f"{key} is no .*key: move it away"):
                await acme.certificate("one.starphleet.net")
            self.assertEqual(key.read_bytes(), content)

    async def test_no_other_file_is_written(self) -> None:
        """A name that is no host name leads to no file, whatever it is called."""
        acme = await self.acme()
        before = {file.name for file in self.root.iterdir()}
        for name in ("../x", "a/b", "A.net", ""):
            with self.assertRaisesRegex(AcmeError, "is no host name"):
                await acme.certificate(name)
        self.assertEqual({file.name for file in self.root.iterdir()}, before)
