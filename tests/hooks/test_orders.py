"""Environments and orders."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from containers.interface import Limits
from hooks.environment import effective, read_env_file
from hooks.errors import Refused
from hooks.orders import (
    NO_COMMIT,
    Orders,
    healthcheck_path,
    orders_of_push,
    orders_of_standing,
)
from hooks.push import read_push
from hooks.repository import Repository
from hooks.standing import UNPUBLISHED, Place, Source, StandingOrders
from hooks.working import Working
from tests.hooks.scene import bare, commit, git, git_at_once, scratch

ZERO = "0" * 40
SOURCE = Source("https://example.com/code", "main")


class EnvFiles(SynchronousTestCase):
    def test_assignments_are_read_as_they_stand(self) -> None:
        """Quotes and `export` are understood, nothing is expanded or run."""
        text = "A=1\n\n# note\nexport B='x y'\nC=\"$A `id` $(id)\"\nD=\n"
        self.assertEqual(
            read_env_file(text, ".env"), {"A": "1", "B": "x y", "C": "$A `id` $(id)", "D": ""}
        )

    def test_what_is_no_assignment_is_named_by_its_line(self) -> None:
        """The line of the first mistake is told."""
        for text, line in (("A=1\n\nfoo bar\n", 3), ("x\n", 1), ("A=1\n1B=2\n", 2)):
            with self.subTest(text=text), self.assertRaisesRegex(Refused, rf"^\.env:{line}:"):
                read_env_file(text, ".env")

    def test_later_layers_are_stronger(self) -> None:
        """Each layer overrides what stood before it, the defaults first."""
        found = effective({"A": "1", "PORT": "1"}, {"A": "2"})
        self.assertEqual((found["A"], found["PORT"]), ("2", "1"))
        self.assertEqual(effective()["PORT"], "3000")


class OrdersOfPushes(SynchronousTestCase):
    def orders(self, files: dict[str, str], **phleet: str) -> Orders:
        home = scratch(self)
        oid = commit(home / "work", files)
        repository = bare(home / "app.git")
        git(home / "work", "push", "-q", str(repository.path), "master")
        push = read_push("app", "ann", [(ZERO, oid, "refs/heads/master")], [])
        return self.successResultOf(
            Deferred.fromCoroutine(
                orders_of_push(push, repository, 60.0, phleet, bases={}, most=Limits())
            )
        )

    def test_the_files_of_the_commit_give_the_orders(self) -> None:
        """Procfile, .env and healthcheck are read; the release is named by what is effective."""
        plain = self.orders({"a": "1"})
        orders = self.orders(
            {"Procfile": "web: x\n", ".env": "A=1\n", "healthcheck": "# how\nup?x=1\n"}
        )
        self.assertEqual(orders.processes, {"web": "x"})
        self.assertEqual(orders.healthcheck, "/up?x=1")
        self.assertEqual(orders.ttl, 60.0)
        self.assertNotEqual(orders.release.configuration, plain.release.configuration)

    def test_the_phleet_is_stronger_than_the_commit(self) -> None:
        """What the headquarters gives to test services wins over `.env`, and names the release."""
        files = {".env": "A=commit\nB=commit\n"}
        found = self.orders(files, A="phleet")
        self.assertEqual((found.environment["A"], found.environment["B"]), ("phleet", "commit"))
        self.assertNotEqual(found.release.configuration, self.orders(files).release.configuration)

    def trouble(self, delay: str) -> str:
        with self.assertRaises(self.failureException) as raised:
            self.orders({".env": f"HEALTHCHECK_INIT_DELAY={delay}\n"})
        return str(raised.exception)

    def test_a_delay_that_is_no_number_is_refused(self) -> None:
        """Whatever Python may think of its digits."""
        for text in ("", "0", "x", "3601", "\u00b2", "1" * 5000):
            with self.subTest(text=text[:9]):
                self.assertIn("Refused: HEALTHCHECK_INIT_DELAY", self.trouble(text))

    def test_a_check_that_is_no_path_is_refused(self) -> None:
        """A healthcheck cannot put anything into a request but its path."""
        for text in ("/a b", "/a\r\nX: y", "/\x00", "/é"):
            with self.subTest(text=text), self.assertRaises(Refused):
                healthcheck_path({"HEALTHCHECK": text}, None)

    def test_the_variable_is_stronger_than_the_file(self) -> None:
        """HEALTHCHECK wins over the healthcheck file, and neither means none."""
        self.assertEqual(healthcheck_path({"HEALTHCHECK": "/v"}, "/f\n"), "/v")
        self.assertIsNone(healthcheck_path({}, "# nothing\n\n"))


class StandingOrdersOfASource(SynchronousTestCase):
    def orders(self, files: dict[str, str], again: int = 0, **environment: str) -> Orders:
        home = scratch(self)
        oid = commit(home / "work", files)
        repository = Repository(home / "work" / ".git", git_at_once)
        standing = StandingOrders("a/b", SOURCE, environment, "digest", {}, Place("/a/b/"))
        return self.successResultOf(
            Deferred.fromCoroutine(
                orders_of_standing(
                    standing, repository, oid, owner="ann", again=again, why="ordered"
                )
            )
        )

    def test_orders_are_stronger_than_the_source(self) -> None:
        """`.env` of the source gives way to the orders' environment; the rest is the source's."""
        found = self.orders(
            {".env": "A=source\nB=source\n", "Procfile": "web: x\n", "healthcheck": "/up\n"},
            A="orders",
        )
        self.assertEqual((found.environment["A"], found.environment["B"]), ("orders", "source"))
        self.assertEqual((found.processes, found.healthcheck), ({"web": "x"}, "/up"))
        self.assertEqual((found.service, found.branch, found.ttl), ("/a/b", "main", None))

    def test_what_makes_another_release(self) -> None:
        """An environment that comes out otherwise, and a wish to have it again, do; a variable that
        the orders override does not."""
        same = {".env": "A=1\n"}
        plain = self.orders(same, A="2").release.configuration
        self.assertEqual(self.orders({".env": "A=3\n"}, A="2").release.configuration, plain)
        for other in (self.orders(same, A="4"), self.orders(same, again=1, A="2")):
            self.assertNotEqual(other.release.configuration, plain)

    def test_a_working_directory_is_a_source(self) -> None:
        """Its files count as those of a commit do. Of one that is linked they make another release,
        for nothing else starts it anew; of a copy the stamp does that."""
        standing = StandingOrders("a", SOURCE, {}, "digest", {}, Place("/a/"))

        def found(linked: bool, **files: str) -> Orders:
            texts = {name.replace("_", "."): text for name, text in files.items()}
            working, stamp = Working(Path("/w/a"), linked), "d261121d181423" + "0" * 10
            made = orders_of_standing(
                standing, None, stamp, owner="ann", again=0, why="", working=working, texts=texts
            )
            return self.successResultOf(Deferred.fromCoroutine(made))

        one = found(True, _env="A=1\n", Procfile="web: x\n")
        self.assertEqual((one.environment["A"], one.processes), ("1", {"web": "x"}))
        self.assertTrue(one.has_source)
        self.assertRegex(str(one.release), r"^a-[0-9a-f]{12}-d261121d1814230{10}$")
        for linked in (True, False):
            same = [found(linked, Procfile=f"web: {text}\n").release for text in "xy"]
            self.assertEqual(same[0] != same[1], linked)

    def test_jobs_alone_need_no_source(self) -> None:
        """Without a source there is nothing to read, and an identity all the same."""
        found, other = (
            self.successResultOf(
                Deferred.fromCoroutine(
                    orders_of_standing(
                        StandingOrders("night", None, {}, content, {}, UNPUBLISHED),
                        None, NO_COMMIT, owner="hq", again=0, why="",
                    )
                )
            )
            for content in ("digest", "another")
        )  # fmt: skip
        self.assertNotEqual(found.release.configuration, other.release.configuration)
        self.assertIsNone(found.repository)
        self.assertEqual(str(found.release)[:6], "night-")
