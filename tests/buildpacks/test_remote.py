"""BUILDPACK_URL: what it may say, and fetching it from a real git server over HTTPS."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from buildpacks.build import Outcome
from buildpacks.packs import BuildError, Pack
from buildpacks.remote import fetch, parse_buildpack_url
from tests.buildpacks.gitserver import GitServer
from tests.buildpacks.place import Child
from tests.buildpacks.scene import REACTOR, Scene


class Urls(SynchronousTestCase):
    def test_accepted(self) -> None:
        """https and ssh in both spellings, with or without a ref."""
        cases = {
            "https://example.org/a/b.git": ("https://example.org/a/b.git", ""),
            "https://example.org:8443/~x/b#v1.2": ("https://example.org:8443/~x/b", "v1.2"),
            " https://example.org/b#topic/x ": ("https://example.org/b", "topic/x"),
            "ssh://git@example.org:22/a/b.git#main": ("ssh://git@example.org:22/a/b.git", "main"),
            "git@example.org:a/b.git": ("git@example.org:a/b.git", ""),
        }
        for text, expected in cases.items():
            self.assertEqual(parse_buildpack_url(text), expected)

    def test_refused_urls(self) -> None:
        """File paths, helpers, options, other schemes, credentials and traversal are refused."""
        for text in (
            *("", "/srv/pack", "./pack", "../pack", "file:///srv/pack", "pack"),
            *("ext::sh -c id", "ext::https://x/y", "fd::7", "-uid", "--upload-pack=id", "-x@h:p"),
            *("http://example.org/b", "git://example.org/b", "HTTPS://example.org/b"),
            *("https://u:p@example.org/b", "https://-x/b", "ssh://-oProxyCommand=id/b"),
            *("git@-oProxyCommand=id:b", "git@host:-x", "git@host:/../b", "https://h/../b"),
            *(
                "https://h/a b",
                "https://h/a\nb",
                "https://h/a\0",
                "https://h/a;id",
                "https://h/$(id)",
            ),
            *("https://h/é", "https://h", "https:///b", "ssh://a@b@c/d", "x::https://h/b"),
        ):
            error = self.assertRaises(BuildError, parse_buildpack_url, text)
            self.assertTrue(str(error).startswith("BUILDPACK_URL "), text)
            self.assertNotIn("\n", str(error))

    def test_refused_refs(self) -> None:
        """A ref that git or a shell could take for something else is refused."""
        for ref in (
            *("", "-x", "--upload-pack=id", "a..b", "a b", "a~1", "a^", "a:b", "a//b", "/a", "a/"),
            *("a.lock", "a/.b", "a/-b", "@{u}", "a#b", "$(id)", "a\nb", "é", "a" * 300, "a."),
        ):
            url = f"https://example.org/b#{ref}x" if ref == "" else f"https://example.org/b#{ref}"
            if ref:
                self.assertRaises(BuildError, parse_buildpack_url, url)
        self.assertRaises(BuildError, parse_buildpack_url, "https://example.org/b#")

    def test_passwords_are_not_repeated(self) -> None:
        """What may be a password is not in the message."""
        error = self.assertRaises(BuildError, parse_buildpack_url, "https://me:hunter2@h/b")
        self.assertNotIn("hunter2", str(error))

    @given(st.text(max_size=80))
    def test_anything(self, text: str) -> None:
        """Any text is either refused or begins as an https or ssh address does, without options."""
        try:
            url, ref = parse_buildpack_url(text)
        except BuildError:
            return
        self.assertRegex(url, r"^(https://|ssh://|\w[\w.-]*@\w)")
        self.assertFalse(ref.startswith("-"))


class Fetching(Scene):
    def setUp(self) -> None:
        super().setUp()
        self.repository = self.home / "pack"
        self.server = GitServer(self.home)
        self.addCleanup(self.server.stop)
        self.into = self.home / "packs"
        self.commit("detect", "compile")

    def git(self, *argv: str) -> str:
        env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null"}
        who = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "init.defaultBranch=main")
        done = subprocess.run(
            ["git", *who, *argv], cwd=self.repository, env=env, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    def commit(self, *programs: str, mode: int = 0o755) -> str:
        self.repository.mkdir(exist_ok=True)
        if not (self.repository / ".git").exists():
            self.git("init", "--quiet")
        shutil.rmtree(self.repository / "bin", ignore_errors=True)
        (self.repository / "bin").mkdir()
        for program in programs:
            (self.repository / "bin" / program).write_text(f"#!/bin/sh\n# {os.urandom(4).hex()}\n")
            (self.repository / "bin" / program).chmod(mode)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")
        return self.git("rev-parse", "HEAD")

    async def run_git(
        self, argv: Sequence[str], env: Mapping[str, str], output: Callable[[bytes], None]
    ) -> Outcome:
        child = Child(output)
        REACTOR.spawnProcess(child, shutil.which(argv[0]) or "", list(argv), dict(env), "/")
        return await child.ended

    async def fetched(self, ref: str = "", name: str = "pack") -> Pack:
        env = {"PATH": os.environ["PATH"], "GIT_SSL_CAINFO": str(self.server.pem)}
        url = f"{self.server.url}/{name}"
        env |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return await fetch(url, ref, self.into, self.run_git, env)

    async def refused(self, ref: str = "", name: str = "pack") -> str:
        try:
            await self.fetched(ref, name)
        except BuildError as error:
            return str(error)
        raise AssertionError("it was fetched")

    def head_of(self, pack: Pack) -> str:
        return (pack.directory / ".git/HEAD").read_text().strip()

    async def test_refs(self) -> None:
        """HEAD, a branch, a tag (also an annotated one) and a full commit id are found."""
        first = self.git("rev-parse", "HEAD")
        self.git("tag", "--annotate", "--message", "x", "v1")
        second = self.commit("detect", "compile")
        self.git("branch", "topic/x", first)
        for ref, commit in {"": second, "main": second, "topic/x": first, "v1": first}.items():
            self.assertEqual(self.head_of(await self.fetched(ref)), commit, ref)
        self.assertEqual(self.head_of(await self.fetched(first)), first)
        self.assertIn("no such branch or tag", await self.refused("gone"))

    async def test_refreshed(self) -> None:
        """A branch that moved is fetched anew, beside the old; one that did not is not."""
        one = await self.fetched("main")
        before = len(self.server.requests)
        self.assertEqual(await self.fetched("main"), one)
        self.assertFalse([r for r in self.server.requests[before:] if "info/refs" not in r][1:])
        moved = self.commit("detect", "compile")
        two = await self.fetched("main")
        self.assertEqual(self.head_of(two), moved)
        self.assertTrue(one.directory.is_dir(), "a running build may still use it")
        old = 1_000_000_000
        os.utime(one.directory, (old, old))
        self.commit("detect", "compile")
        await self.fetched("main")
        self.assertFalse(one.directory.exists())

    async def test_not_a_buildpack(self) -> None:
        """A repository without executable bin/detect and bin/compile is refused, nothing kept."""
        self.commit("detect")
        self.assertIn("it has no executable bin/compile", await self.refused())
        self.commit("detect", "compile", mode=0o644)
        self.assertIn("it has no executable bin/detect", await self.refused())
        (self.repository / "bin/detect").unlink()
        (self.repository / "bin/detect").symlink_to("/bin/true")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")
        self.assertIn("it has no executable bin/detect", await self.refused())
        self.assertEqual(list(self.into.iterdir()), [])

    async def test_unreachable(self) -> None:
        """A repository that is not there is refused in one line, with git's own reason."""
        said = await self.refused(name="nothing")
        self.assertRegex(said, r"^buildpack .* cannot be read: fatal: .*not found")

    async def test_only_https_and_ssh(self) -> None:
        """Even past the grammar, git itself refuses other transports and runs nothing."""
        for url in (str(self.repository), f"file://{self.repository}", "ext::touch% /tmp/x"):
            with self.assertRaises(BuildError) as caught:
                await fetch(url, "", self.into, self.run_git, {"PATH": os.environ["PATH"]})
            self.assertIn("not allowed", str(caught.exception) + "".join(caught.exception.tail))

    async def test_submodules_stay_away(self) -> None:
        """A submodule is not fetched, wherever it points."""
        (self.repository / ".gitmodules").write_text(
            f'[submodule "s"]\n\tpath = s\n\turl = {self.server.url}/other\n'
        )
        sha = self.git("rev-parse", "HEAD")
        self.git("update-index", "--add", "--cacheinfo", f"160000,{sha},s")
        self.git("add", ".gitmodules")
        self.git("commit", "--quiet", "--message", "x")
        await self.fetched()
        self.assertFalse([path for path in self.server.requests if "other" in path])
