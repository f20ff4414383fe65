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
from proxy.directives import ALLOWED, directives
from proxy.instance import Instance
from proxy.render import generation_files
from proxy.routes import Backend, InvalidRoute, Route, RouteTaken
from proxy.structure import Structure

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

    def test_what_orders_say_is_refused_by_name(self) -> None:
        """What is hostile, or the proxy's own to say, is refused in every field, in one line."""
        for field, values in {
            "port": (0, 65536, True, "80", -1),
            "redirects": ((("a b", "https://x"),), (("a", "javascript:x"),), (("a", "http://x y"),),
                (("a", 'https://x/"'),), (("a", "https://x/\\"),), (("a",),), (("a", "https://x\n"),)),
            "request_headers": ((("Host", "x"),), (("x-identity", "x"),), (("JWT-role", "x"),),
                (("X-Forwarded-For", "x"),), (("a b", "x"),), (("a", "x\r\ny: z"),), (("a", "é"),),
                (("", "x"),), (("a", "x\x00"),), (("Content-Length", "1"),), (("x-user", "root"),)),
            "response_headers": ((("Transfer-Encoding", "x"),), (("a:", "x"),), (("a", "x\ny"),),
                (("X-Starphleet-Service", "x"),)),
            "origins": (("https://x/",), ("x",), ("https://a b",), ("null",), ("https://x\n",)),
            "identity_header": ("", "a b", "X_User", "Host", "cookie", "Authorization", "x:y",
                "Content-Type", "X-Forwarded-For", "Sec-Fetch-Site", "x" * 65, "x\n"),
            "locations": ("include /etc/passwd;", "gzip on; } location / {", "allow all;",
                "proxy_pass http://evil;", "access_by_lua_block x;", "satisfy any;", "gzip $x;",
                "auth_basic off;", "add_header X-A b;", "proxy_set_header X-Identity root;",
                "root /;", "return 200;", "rewrite ^ /;", "error_page 401 /;", "gzip", "set $a b;",
                "proxy_cache_key x;", "proxy_store on;", "mirror /x;", "gzip on\x00;", 'gzip "on',
                "proxy_hide_header X-A;", "expires modified 1d;", "é off;", "access_log /etc/x;"),
        }.items():  # fmt: skip
            for value in values:
                given: dict[str, Any] = {"identity_header": "x-user", field: value}
                with self.assertRaises(InvalidRoute, msg=f"{field} {value!r}") as caught:
                    Route("a", (), "/a/", **given)
                self.assertNotIn("\n", str(caught.exception))

    def test_paths_of_the_ship(self) -> None:
        """No route, and nothing below it, can be where the ship itself answers."""
        for path in ("/starphleet/", "/starphleet/hooks/", "/.well-known/acme-challenge/x/"):
            with self.assertRaises(InvalidRoute):
                Route("a", (), path)

    def test_names_within_one_route(self) -> None:
        """A route does not lead two ways from one name, and needs a path to be cached at."""
        for wrong in (
            {"hosts": ("a",), "redirects": (("a", "https://x"),)},
            {"hosts": (), "redirects": (("b", "https://x"), ("b", "https://y"))},
        ):
            with self.assertRaises(InvalidRoute):
                Route(service="a", path="/a/", **wrong)
        with self.assertRaises(InvalidRoute):
            Route("a", ("a",), "", cached=True)
        self.assertEqual(Route("a", (), "", port=80).ways, ("port 80",))

    def test_directives_mean_what_they_say(self) -> None:
        """Directives are written anew from their words: comments go, quotes stay safe."""
        text = """gzip on;# a }
          sub_filter 'say "hi"' "it's" ;
          proxy_cookie_path / "/a b/"; ; expires max;"""
        self.assertEqual(
            [directive.text for directive in directives(text)],
            [
                "gzip on;",
                'sub_filter \'say "hi"\' "it\'s";',
                'proxy_cookie_path / "/a b/";',
                "expires max;",
            ],
        )

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
            silence=60,
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
            with contextlib.suppress(InvalidRoute):  # a location of its own for each path
                taken.add(Route("s", (), f"/{path}/", locations="gzip off;"))

        collect()
        self.assertGreater(len(taken), 20)
        apart = {
            str(n): Route(route.service, route.hosts, route.path.replace("/p/", f"/p/{n}/"))
            for n, route in enumerate(sorted(taken, key=str))
        }
        self.assertEqual(self.said_of(Structure(apart)), "")

    def test_directives_stay_where_they_are(self) -> None:
        """Whatever passes as directives is inside its location: nginx takes it, or objects to a
        word of it, and never to what comes after."""
        taken: set[str] = set()
        words = st.one_of(st.sampled_from([*sorted(ALLOWED), ";", "on", "1k", " ", "\n"]), pieces)

        @settings(max_examples=600, deadline=None, database=None)
        @given(
            text=st.lists(words, max_size=8).map(" ".join), name=st.sampled_from(sorted(ALLOWED))
        )
        def collect(text: str, name: str) -> None:
            for each in (text, f"{name} {text};"):
                with contextlib.suppress(InvalidRoute):
                    taken.add(" ".join(d.text for d in directives(each)))

        collect()
        self.assertGreater(len(taken), 20)
        for text in taken:
            for directive in directives(text):
                self.assertIn(directive.name, ALLOWED)
                self.assertEqual(directives(directive.text), (directive,))
        for text in sorted(taken)[:: max(1, len(taken) // 20)]:
            route = Route("s", (), "/p/", locations=text)
            said = self.said_of(Structure({"s": route}))
            self.assertNotRegex(
                said, "unexpected|unknown directive|not terminated|not allowed here"
            )

    def test_injection_would_be_seen(self) -> None:
        """The check above is worth something: a name past the grammar does break nginx."""
        for name, value in (("hosts", ("b } evil;",)), ("path", "/c/ } evil;/")):
            route = Route("a", ("b",), "/c/", locations="gzip off;")
            object.__setattr__(route, name, value)
            self.assertIn("emerg", self.said_of(Structure({"a": route})))

    def said_of(self, structure: Structure) -> str:
        directory = self.prefix / "generations" / "1"
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in generation_files(self.instance, structure, 1).items():
            assert isinstance(text, str)
            (directory / name).write_text(text)
        argv = ["nginx", "-p", str(self.prefix), "-e", "logs/error.log", "-t", "-q"]
        done = subprocess.run(
            [*argv, "-c", "generations/1/nginx.conf"], capture_output=True, text=True, check=False
        )
        return done.stderr if done.returncode else ""
