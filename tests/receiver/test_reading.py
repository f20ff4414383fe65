"""A headquarters, read from a commit: what stands in its files, and what is refused of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twisted.internet import reactor

from containers.closed import Closed
from hooks.errors import Refused
from hooks.repository import Repository
from hooks.standing import UNPUBLISHED, Job, Place, Source
from receiver.headquarters.evaluate import Evaluator
from receiver.headquarters.files import LARGEST
from receiver.headquarters.headquarters import Headquarters
from receiver.headquarters.reading import Reader
from tests.files import lay
from tests.receiver.git_scene import GitCase, local_git

PUBLIC = "export SECURITY_MODE=public\n"
CODE = f"{PUBLIC}autodeploy https://example.com/code\n"


class ReadingCase(GitCase):
    """`read` commits files and reads that commit as a ship would."""

    def setUp(self) -> None:
        super().setUp()
        self.home.chmod(0o755)
        self.own = self.home / "own"
        self.reader = Reader(
            Evaluator(reactor, Closed(reactor, self.layout.closed)),
            self.own,
            {"PORT": "3000", "SHIP_NAME": "ada"},
        )
        self.source = Source(self.url, "first")

    async def read(self, files: Mapping[str, str]) -> Headquarters:
        lay(self.work.path, files)
        return await self.read_now()

    async def read_now(self) -> Headquarters:
        commit = self.work.commit()
        tree = self.layout.trees / commit
        tree.mkdir()
        repository = Repository(self.work.path / ".git", local_git)
        return await self.reader.read(repository, self.source, commit, tree, self.layout.scratch)


class Fixtures(ReadingCase):
    """What the guides' sample headquarters has, in a small one of our own."""

    async def test_a_web_service_with_everything(self) -> None:
        """Port, check, build settings, a branch, two beta groups, stop first, two jobs and a
        preparation are all there."""
        found = await self.read(
            {
                "call/orders": f"{PUBLIC}export PORT=4000\nexport HEALTHCHECK=/\n"
                "export BUILDPACK_CACHE_DIR=/var/data/call-cache\n"
                "export BUILDPACK_URL=https://example.com/pack#stable\n"
                "stop_before_autodeploy\n"
                "autodeploy git@example.com:us/call.git#loud\n"
                "beta beep call-one\nbeta boop call-two\n",
                "call/hail": "#!/bin/sh\n#@ * * * * *\ncurl http://localhost/\n",
                "call/part": "#!/bin/sh\n#@ * * * * *\ncurl http://localship/\n",
                "call/on_containerize": "#!/bin/sh\napt-get install -y cowsay\n",
            }
        )
        self.assertEqual(found.refused, {})
        (one,) = found.orders.values()
        self.assertEqual((one.service, one.place), ("/call", Place("/call/")))
        self.assertEqual(one.source, Source("git@example.com:us/call.git", "loud"))
        self.assertEqual(
            dict(one.environment),
            {
                "SECURITY_MODE": "public",
                "PORT": "4000",
                "HEALTHCHECK": "/",
                "BUILDPACK_CACHE_DIR": "/var/data/call-cache",
                "BUILDPACK_URL": "https://example.com/pack#stable",
            },
        )
        self.assertTrue(one.stop_first)
        self.assertEqual(one.front.betas, (("beep", "/call-one/"), ("boop", "/call-two/")))
        self.assertEqual(one.jobs, (Job("hail", "* * * * *"), Job("part", "* * * * *")))
        self.assertTrue(one.files["on_containerize"].executable)

    async def test_services_without_a_route(self) -> None:
        """Containers for jobs alone have no source and no route; one exposes a port."""
        found = await self.read(
            {
                "worker/orders": "unpublished\nexpose 43000\n",
                "worker/tick": "#!/bin/sh\n#@ * * * * *\necho tick\n",
                "other/orders": "unpublished\n",
                "other/tock": "#!/bin/sh\n#@ @hourly\necho tock\n",
            }
        )
        self.assertEqual(found.refused, {})
        for one in found.orders.values():
            self.assertEqual((one.source, one.place), (None, UNPUBLISHED))
        self.assertEqual(found.orders["worker"].front.exposed, (43000,))
        self.assertEqual(found.orders["other"].jobs, (Job("tock", "@hourly"),))
        self.assertEqual(found.sources, set())

    async def test_the_headquarters_as_data(self) -> None:
        """A remote may be the headquarters itself, in a directory whose name no service may have:
        as orders it is refused."""
        found = await self.read({"starphleet/remote": 'autodeploy "$HEADQUARTERS_REMOTE"\n'})
        self.assertEqual(found.remotes, {"starphleet": Source(self.url)})
        self.assertEqual(found.refused, {})
        found = await self.read({"starphleet/orders": CODE})
        self.assertIn("/starphleet/ is the ship's own", found.refused["starphleet/orders"])

    async def test_groups_and_keys(self) -> None:
        """Groups have their users, in lower case; keys are handed on, and so is what lies beside
        them: who lets people in decides what of it is a key."""
        found = await self.read(
            {
                "beta_groups/beep": "1234\n",
                "beta_groups/boop": "5678\nAda\n",
                "beta_groups/README.md": "who is in\n",
                "authorized_keys/README.md": "keys\n",
                "authorized_keys/old.pub": "ssh-dss AAAA old\n",
                "known_hosts": "example.com ssh-ed25519 AAAA\n",
            }
        )
        self.assertEqual(found.beta_groups, {"beep": ("1234",), "boop": ("5678", "ada")})
        self.assertEqual(set(found.keys), {"README.md", "old.pub"})
        self.assertEqual(found.known_hosts, b"example.com ssh-ed25519 AAAA\n")


class Refusals(ReadingCase):
    async def test_one_bad_file_holds_back_itself(self) -> None:
        """Of many orders, remotes and servers the bad ones are named with file and line, the good
        ones are read."""
        found = await self.read(
            {
                **{f"s{n}/orders": CODE for n in range(5)},
                "bad/orders": f"{PUBLIC}autodeploy ext::sh\n",
                "worse/orders": "if\n",
                "bad/remote": "expose 80\n",
                "d/remote": "autodeploy https://example.com/data\n",
                "ldap_servers/good": "export LDAP_URL=ldap://x LDAP_USER=u LDAP_PASSWORD=p\n",
                "ldap_servers/bad": "export LDAP_URL=ldap://x\n",
            }
        )
        self.assertEqual(sorted(found.orders), [f"s{n}" for n in range(5)])
        self.assertEqual(found.remotes, {"d": Source("https://example.com/data")})
        self.assertEqual(set(found.ldap_servers), {"good"})
        told = {
            "bad/orders": "bad/orders:2: ",
            "worse/orders": "worse/orders:2: syntax error",
            "bad/remote": "bad/remote:1: expose is for orders",
            "ldap_servers/bad": "ldap_servers/bad: it does not export LDAP_USER, LDAP_PASSWORD",
        }
        self.assertEqual(set(found.refused), set(told))
        for name, text in told.items():
            self.assertTrue(found.refused[name].startswith(text), found.refused[name])
        self.assertEqual(found.held, {"bad", "worse"})

    async def test_what_is_no_regular_file(self) -> None:
        """Orders that are a link, into the headquarters or out of it, or too large, are refused."""
        lay(self.work.path, {"real": CODE, "large/orders": "#" * (LARGEST + 1)})
        for at, target in (("inside", "../real"), ("outside", "/etc/passwd")):
            (self.work.path / at).mkdir()
            (self.work.path / at / "orders").symlink_to(target)
        found = await self.read_now()
        self.assertEqual(found.orders, {})
        for name in ("inside/orders", "outside/orders"):
            self.assertIn("it must be a regular file", found.refused[name])
        self.assertIn("at most 1024 are read", found.refused["large/orders"])

    async def test_protection_is_not_overlooked(self) -> None:
        """A `.htpasswd` that is a link and an `.acl` that is too large are refused, not ignored."""
        lay(self.work.path, {"a/orders": "autodeploy https://x.org/y\n", "b/orders": CODE})
        (self.work.path / "a" / ".htpasswd").symlink_to("/etc/passwd")
        (self.work.path / "b" / "team.acl").write_text("x" * (LARGEST + 1))
        found = await self.read_now()
        self.assertEqual(found.orders, {})
        self.assertEqual(set(found.refused), {"a/orders", "b/orders"})

    async def test_forged_records_hold_back_their_own_file(self) -> None:
        """Whatever an orders file writes where its commands are told, the others are read."""
        forged = "printf 'call\\0001\\0001\\000foo\\000' >&3\n"
        found = await self.read({"a/orders": forged, "b/orders": CODE})
        self.assertEqual((sorted(found.orders), set(found.refused)), (["b"], {"a/orders"}))

    async def test_two_that_want_one_thing(self) -> None:
        """A host, or a published port, is the first one's by path; the second is refused and says
        who has it."""
        found = await self.read(
            {
                "a/orders": f"{CODE}proxy_for x.example.com\nexport PUBLISH_PORT=5000\n",
                "b/orders": f"{CODE}proxy_for X.example.com\n",
                "c/orders": f"{CODE}export PUBLISH_PORT=5000\n",
                "d/orders": f"{CODE}export PUBLISH_PORT=0\n",
                "e/orders": f"{CODE}export PUBLISH_PORT=0\n",
            }
        )
        self.assertEqual(sorted(found.orders), ["a", "d", "e"])
        self.assertEqual(found.refused["b/orders"], "b/orders: a/orders has x.example.com")
        self.assertEqual(found.refused["c/orders"], "c/orders: a/orders has port 5000")

    async def test_what_stands_for_all_must_be_right(self) -> None:
        """A `.starphleet` that fails, or is a link, refuses the commit: nothing is read of it."""
        with self.assertRaisesRegex(Refused, r"^\.starphleet:2: "):
            await self.read({".starphleet": "A=1\n)\n", "a/orders": CODE})
        (file := self.work.path / ".starphleet").unlink()
        file.symlink_to("/etc/passwd")
        with self.assertRaisesRegex(Refused, r"^\.starphleet: it must be a regular file"):
            await self.read_now()


class Layers(ReadingCase):
    async def test_later_layers_are_stronger(self) -> None:
        """`.starphleet`, the ship's own files in order, orders: each sees what is there already and
        changes it; one order's variables are not another's."""
        self.own.mkdir()
        (self.own / "20-b").write_text("export A=${A}b\n")
        (self.own / "10-a").write_text("export A=${A}a OWN=1\n")
        found = await self.read(
            {
                ".starphleet": "export A=s KEPT=yes HIDDEN=x\nnot_exported=1\n",
                "one/orders": f"{CODE}export A=${{A}}o\nunset HIDDEN\n",
                "two/orders": CODE,
            }
        )
        one, two = found.orders["one"].environment, found.orders["two"].environment
        self.assertEqual((one["A"], two["A"]), ("sabo", "sab"))
        self.assertEqual((one["KEPT"], one["OWN"]), ("yes", "1"))
        self.assertNotIn("HIDDEN", one)
        self.assertEqual(two["HIDDEN"], "x")
        self.assertEqual(found.for_services["A"], "sab")

    async def test_what_services_are_not_told(self) -> None:
        """The hooks' secret, the headquarters' address and defaults are in no service's
        environment; a default that somebody set is, also to what it was."""
        found = await self.read(
            {
                ".starphleet": "export STARPHLEET_HOOK_SECRET=x PORT=3001\n",
                "a/orders": f'{CODE}export WHERE="$SHIP_NAME"\n',
                "b/orders": f"{CODE}export PORT=3000\n",
            }
        )
        self.assertEqual(found.orders["b"].environment["PORT"], "3000")
        environment = found.orders["a"].environment
        self.assertEqual(
            dict(environment), {"SECURITY_MODE": "public", "PORT": "3001", "WHERE": "ada"}
        )
        self.assertEqual(dict(found.for_services), {"PORT": "3001"})
        self.assertEqual(found.environment["STARPHLEET_HOOK_SECRET"], "x")

    async def test_what_changes_a_service(self) -> None:
        """Its identity changes with any file of its directory, its mode, and any variable that
        reaches it; not with another directory, nor with what it overrides."""
        base = {
            ".starphleet": "export SHARED=1\n",
            "a/orders": f"{CODE}export OWN=1\n",
            "a/b/orders": f"{CODE}export SHARED=mine\n",
        }

        async def identities(files: Mapping[str, str]) -> list[str]:
            orders = (await self.read(files)).orders
            return [orders[path].identity for path in ("a", "a/b")]

        a, b = await identities(base)
        self.assertEqual(await identities({"README": "x\n", "c/orders": CODE}), [a, b])
        a2, b2 = await identities({"a/b/note": "x\n"})
        self.assertEqual((a2 == a, b2 == b), (True, False))
        a3, b3 = await identities({"a/note": "x\n"})
        self.assertEqual((a3 == a, b3 == b2), (False, True))
        a4, b4 = await identities({"a/note": "#!x\n"})
        self.assertEqual((a4 == a3, b4 == b2), (False, True))
        a5, b5 = await identities({".starphleet": "export SHARED=2\n"})
        self.assertEqual((a5 == a4, b5 == b4), (False, True))
        sourced = f"{CODE}source ../common\n"
        a6, _ = await identities({"a/orders": sourced, "common": "proxy_for a.example.com\n"})
        a7, b7 = await identities({"common": "proxy_for b.example.com\n"})
        self.assertEqual((a7 == a6, b7 == b5), (False, True))


class Places(ReadingCase):
    async def test_nested_and_root(self) -> None:
        """Orders nest at any depth and may be at the root; each has the files of its directory that
        are not another's; reserved directories at the root hold none."""
        found = await self.read(
            {
                "orders": CODE,
                "top": "x\n",
                "a/orders": CODE,
                "a/lib/file": "x\n",
                "a/b/c/orders": CODE,
                "a/b/c/file": "x\n",
                "overlay/etc/orders": CODE,
                "shipscripts/orders": CODE,
                "empty/README": "x\n",
            }
        )
        self.assertEqual(found.refused, {})
        self.assertEqual(sorted(found.orders), ["", "a", "a/b/c"])
        self.assertEqual(found.orders[""].place, Place("/"))
        self.assertEqual(set(found.orders["a"].files), {"orders", "lib/file"})
        self.assertEqual(set(found.orders["a/b/c"].files), {"orders", "file"})
        self.assertIn("top", found.orders[""].files)
        self.assertNotIn("a/orders", found.orders[""].files)

    async def test_nothing_at_all(self) -> None:
        """A headquarters without orders is a headquarters."""
        found = await self.read({"README.md": "soon\n"})
        self.assertEqual((found.orders, found.remotes, found.refused), ({}, {}, {}))

    async def test_what_git_could_not_lay_elsewhere(self) -> None:
        """The files are where scripts of the ship find them, and nowhere else."""
        found = await self.read({"shipscripts/go": "#!/bin/sh\n"})
        self.assertTrue((found.tree / "shipscripts" / "go").is_file())
        self.assertEqual(Path(found.tree).parent, self.layout.trees)
