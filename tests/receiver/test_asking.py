"""Asking real repositories which commits their refs name."""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from hooks.errors import Refused, Unreachable
from receiver.headquarters.asking import Asking
from tests.receiver.git_scene import GitCase, Work, git


class ByPath(GitCase):
    def setUp(self) -> None:
        super().setUp()
        self.asking = Asking(reactor, self.remote())
        self.addCleanup(self.close)

    def close(self) -> object:
        return self.started(self.asking.close())

    async def ask(self, *refs: str) -> dict[str, str | None]:
        return await self.asking.ask(self.url, refs)

    async def test_names(self) -> None:
        """Default branch, branch, light and annotated tag, full id, and what is not there."""
        first = self.work.tip()
        git(self.work.path, "tag", "light")
        git(self.work.path, "tag", "-a", "-m", "x", "heavy")
        second = self.work.commit()
        git(self.work.path, "branch", "a/b")
        full = "ab" * 20
        self.assertEqual(
            await self.ask("", "first", "a/b", "light", "heavy", full, "none", "firs"),
            {
                "": second, "first": second, "a/b": second, "light": first, "heavy": first,
                full: full, "none": None, "firs": None,
            },
        )  # fmt: skip

    async def test_a_branch_counts_before_a_tag(self) -> None:
        """A branch and a tag of one name: the branch."""
        git(self.work.path, "tag", "both")
        moved = self.work.commit()
        git(self.work.path, "branch", "both")
        self.assertEqual(await self.ask("both"), {"both": moved})

    async def test_moves(self) -> None:
        """Force-push backwards, an empty commit, a moved tag, a deleted branch, another default."""
        first = self.work.tip()
        git(self.work.path, "tag", "t")
        second = self.work.commit("one")
        self.assertEqual(await self.ask("", "t"), {"": second, "t": first})
        git(self.work.path, "tag", "-f", "t")
        git(self.work.path, "checkout", "-q", "-b", "other")
        third = self.work.commit("third")
        git(self.work.path, "branch", "-f", "first", first)
        self.assertEqual(await self.ask("", "t", "first"), {"": third, "t": second, "first": first})
        git(self.work.path, "branch", "-D", "first")
        self.assertEqual(await self.ask("first"), {"first": None})

    async def test_sha256(self) -> None:
        """A repository with ids of 64 digits."""
        work = Work(self.origin / "long", "--object-format=sha256")
        url = self.url.replace("/app", "/long")
        self.assertEqual(await self.asking.ask(url, [""]), {"": work.tip()})

    async def test_an_empty_repository_has_no_default_branch(self) -> None:
        """`None`, and no error."""
        (self.origin / "empty").mkdir()
        git(self.origin / "empty", "init", "-q", "--bare")
        url = self.url.replace("/app", "/empty")
        self.assertEqual(await self.asking.ask(url, [""]), {"": None})

    async def test_missing(self) -> None:
        """A repository that is not there is one line, which names it."""
        url = self.url.replace("/app", "/none")
        with self.assertRaises(Unreachable) as caught:
            await self.asking.ask(url, [""])
        self.assertEqual(str(caught.exception), f"cannot read {url}: repository not found")


class ByHttps(ByPath):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve()
        self.url = f"{self.server.url}/app/.git".replace("/app/.git", "/app")
        self.asking.git = self.remote()

    async def test_one_request_for_all_refs(self) -> None:
        """After the first question each is one POST, whatever the number of refs."""
        await self.ask("")
        self.server.requests.clear()
        await self.ask("", "first", "x")
        self.assertEqual(self.server.requests, ["/app/git-upload-pack"])

    async def test_cheap(self) -> None:
        """No git runs on the ship while a server speaks version 2."""
        self.asking.git = self.remote().__class__(reactor, self.layout, "/nowhere", self.extra)
        self.assertEqual(await self.ask(""), {"": self.work.tip()})

    async def test_wrong_certificate(self) -> None:
        """A server whose certificate is not trusted is not read."""
        extra = {"GIT_SSL_CAINFO": "/etc/ssl/certs/ca-certificates.crt"}
        self.asking.git = self.remote().__class__(reactor, self.layout, "/usr/bin:/bin", extra)
        with self.assertRaisesRegex(Unreachable, "certificate"):
            await self.ask("")


class Others(GitCase):
    async def test_a_url_that_is_an_option_starts_nothing(self) -> None:
        """`--upload-pack=…` is refused before any process."""
        asking = Asking(reactor, self.remote())
        for url in ("--upload-pack=touch /tmp/x", "ext::sh -c id", "ssh://-oProxyCommand=id/x"):
            with self.assertRaises(Refused):
                await asking.ask(url, [""])

    async def test_a_full_id_needs_no_question(self) -> None:
        """Even when nobody could answer."""
        full = "ab" * 20
        asking = Asking(reactor, self.remote())
        self.assertEqual(await asking.ask("https://127.0.0.1:1/x", [full]), {full: full})

    async def test_a_host_that_hangs_delays_no_other(self) -> None:
        """Its questions end in time; another host's are answered meanwhile."""
        deaf = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.addCleanup(deaf.close)
        port = deaf.getsockname()[1]
        asking = Asking(reactor, self.remote(), seconds=2.0)
        hung = [self.started(asking.ask(f"https://127.0.0.1:{port}/{n}", [""])) for n in range(12)]
        self.assertEqual(await asking.ask(self.url, [""]), {"": self.work.tip()})
        self.assertFalse(any(one.called for one in hung))
        results = await gatherResults([one.addErrback(str) for one in hung[:8]])
        self.assertIn("no answer within 2 s", results[0])
        for one in hung[8:]:
            one.addErrback(lambda _: None)
            one.cancel()
        await asking.close()
