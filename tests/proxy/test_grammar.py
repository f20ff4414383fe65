"""Names reach nginx's configuration only through a grammar."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from proxy.control import table_text
from proxy.render import Instance, lua, render
from proxy.routes import Backend, InvalidRoute, Route, RouteTaken, Structure

HOSTILE = (
    "",
    "a;b",
    "a}",
    "a\n",
    "\na",
    "a b",
    "$host",
    "a#b",
    "{{ 7*7 }}",
    "{% raw %}",
    'a"b',
    "a'b",
    "a\\b",
    "..",
    "../a",
    "-a",
    "--help",
    "a\x00",
    "é",
    "ａ",
    "A",
    "a" * 300,
)

pieces = st.sampled_from(
    [*";}{$#\n\r\t \"'\\%~^*=()[]|/.-_", "{{", "}}", "{%", "a", "b9", "include"]
)
texts = st.one_of(st.text(max_size=20), st.lists(pieces, max_size=12).map("".join))


def names(letters: str) -> st.SearchStrategy[str]:
    """Names of these letters, names that are nearly so, and hostile ones."""
    good = st.text(letters, min_size=1, max_size=30)
    return st.one_of(good, good, st.tuples(good, pieces).map("".join), texts)


class GrammarTests(SynchronousTestCase):
    def test_hostile_names_are_refused(self) -> None:
        """What could mean something to nginx, a template or a file system is refused by name."""
        for name in HOSTILE:
            with self.assertRaises(InvalidRoute):
                Route(name, ("a.localhost",), "/a/")
            with self.assertRaises(InvalidRoute):
                Route("a", (name,), "/a/")
            with self.assertRaises(InvalidRoute):
                Route("a", ("a.localhost",), f"/{name}/x;/")
            with self.assertRaises(InvalidRoute):
                Backend(name, "127.0.0.1", 80)
            with self.assertRaises(InvalidRoute):
                Backend("a", name, 80)

    def test_refusal_says_what_and_why(self) -> None:
        """A refusal is one line with the kind of name, the name and its grammar."""
        with self.assertRaises(InvalidRoute) as caught:
            Route("a;b\n", (), "/")
        self.assertIn("service name 'a;b\\n' is refused: it must match", str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        self.assertIsInstance(caught.exception, ValueError)

    def test_paths(self) -> None:
        """Paths begin and end with a slash and have no dot segments or empty ones."""
        for good in ("/", "/~hello/", "/a/b.c/", "/~hello--feature-x/", "/.well-known/"):
            self.assertEqual(Route("a", (), good).path, good)
        for bad in ("a", "/a", "a/", "//", "/a//b/", "/./", "/../", "/a/../b/", "/a\n/", "/a/\n"):
            with self.assertRaises(InvalidRoute):
                Route("a", (), bad)

    def test_addresses(self) -> None:
        """A backend is an IPv4 address and a port."""
        for host in ("127.0.0.1", "10.0.3.7"):
            self.assertEqual(Backend("a", host, 65535).host, host)
        for host in ("localhost", "::1", "1.2.3", "127.0.0.1\n", "١.1.1.1"):
            with self.assertRaises(InvalidRoute):
                Backend("a", host, 80)
        odd: list[Any] = [0, 65536, -1, True, "80"]
        for port in odd:
            with self.assertRaises(InvalidRoute):
                Backend("a", "127.0.0.1", port)

    def test_route_needs_a_way_in(self) -> None:
        """A route without host and path is refused, and so is a host named twice."""
        for hosts in ((), ("a.localhost", "a.localhost")):
            with self.assertRaises(InvalidRoute):
                Route("a", hosts, "")

    def test_no_two_services_share_a_way_in(self) -> None:
        """A host or a path leads to one service; a service may replace its own route."""
        structure = Structure().with_route(Route("a", ("a.localhost",), "/a/"))
        for other in (Route("b", ("a.localhost",), ""), Route("b", (), "/a/")):
            with self.assertRaises(RouteTaken):
                structure.with_route(other)
        moved = structure.with_route(Route("a", (), "/a/"))
        self.assertEqual(list(moved.routes), ["a"])
        self.assertEqual(moved.without("a").without("a").routes, {})

    def test_table_has_one_line_each(self) -> None:
        """The table that nginx reads has one line for each service, in a fixed order."""
        backend = Backend("c.1", "127.0.0.1", 80)
        self.assertEqual(
            table_text({"b": backend, "a": backend}), "a 127.0.0.1 80 c.1\nb 127.0.0.1 80 c.1\n"
        )


class InjectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.prefix = Path(tempfile.mkdtemp(prefix="proxy-"))
        self.addCleanup(shutil.rmtree, self.prefix)
        for name in ("logs", "temp", "control"):
            (self.prefix / name).mkdir()
        self.instance = Instance(
            prefix=self.prefix,
            modules=Path("/usr/lib/nginx/modules"),
            ship="ship",
            bind="127.0.0.1",
            port=1,
            worker_user=None,
            workers=1,
            files=1024,
            patience=60,
        )

    def test_nginx_takes_whatever_the_grammar_takes(self) -> None:
        """Any name is either refused, or renders to a configuration that nginx takes."""
        taken: set[Route] = set()

        @settings(max_examples=600, deadline=None, database=None)
        @given(service=names("az09-"), host=names("az09-."), path=names("/AZaz09._~-"))
        def collect(service: str, host: str, path: str) -> None:
            for arguments in ((service, (), "/p/"), ("s", (host,), ""), ("s", (), f"/{path}/")):
                with contextlib.suppress(InvalidRoute):
                    taken.add(Route(*arguments))

        collect()
        self.assertGreater(len(taken), 20)
        apart = {
            str(n): Route(route.service, route.hosts, route.path.replace("/p/", f"/p/{n}/"))
            for n, route in enumerate(sorted(taken, key=str))
        }
        self.assertEqual(self.said_of(Structure(apart)), "")

    def test_injection_would_be_seen(self) -> None:
        """The check above is worth something: a name past the grammar does break nginx."""
        route = Route("a", ("b",), "/c/")
        object.__setattr__(route, "path", "/c/ } evil;/")
        self.assertIn("emerg", self.said_of(Structure({"a": route})))

    def said_of(self, structure: Structure) -> str:
        directory = self.prefix / "generations" / "1"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "starphleet.lua").write_text(lua())
        (directory / "nginx.conf").write_text(render(self.instance, structure, 1))
        argv = ["nginx", "-p", str(self.prefix), "-e", "logs/error.log", "-t", "-q"]
        done = subprocess.run(
            [*argv, "-c", "generations/1/nginx.conf"], capture_output=True, text=True, check=False
        )
        return done.stderr if done.returncode else ""
