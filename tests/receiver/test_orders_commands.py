"""What the commands of an orders file mean, and what may be followed."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Refused
from hooks.standing import UNPUBLISHED, File, Place, Source, StandingOrders
from proxy.protection import Sign
from receiver.headquarters.commands import (
    USAGES,
    check_path,
    remote_source,
    standing,
)
from receiver.headquarters.evaluate import COMMANDS, Call, Evaluated
from receiver.headquarters.jobs import jobs_of
from receiver.headquarters.source import source_of_operator, source_of_orders

HERE = Source("/srv/hq.git", "main")
CODE = "https://example.com/code#main"


def said(*lines: str, **environment: str) -> Evaluated:
    """What a file comes to that gives these commands, one a line."""
    words = [line.split(" ") for line in lines]
    calls = tuple(Call(one[0], tuple(one[1:]), at) for at, one in enumerate(words, 1))
    return Evaluated({"SECURITY_MODE": "public", **environment}, calls, ())


def orders(
    *lines: str, path: str = "shop", files: Mapping[str, File] | None = None, **environment: str
) -> StandingOrders:
    found = read(*lines, path=path, files=files, **environment)
    assert isinstance(found, StandingOrders)
    return found


def read(
    *lines: str, path: str = "shop", files: Mapping[str, File] | None = None, **environment: str
) -> StandingOrders | Sign:
    evaluated = said(*lines, **environment)
    return standing(path, evaluated, files or {}, "digest", headquarters=HERE)


class Commands(SynchronousTestCase):
    def refused(self, *lines: str, **environment: str) -> str:
        with self.assertRaises(Refused) as caught:
            orders(f"autodeploy {CODE}", *lines, files=None, **environment)
        return str(caught.exception)

    def test_where_it_serves(self) -> None:
        """At the path of its directory; at hosts besides; nowhere when it is unpublished."""
        self.assertEqual(orders(f"autodeploy {CODE}").place, Place("/shop/"))
        self.assertEqual(orders(f"autodeploy {CODE}", path="").place, Place("/"))
        self.assertEqual(orders(f"autodeploy {CODE}", path="a/b").place, Place("/a/b/"))
        both = orders(
            f"autodeploy {CODE}",
            "proxy_for A.example.com b.example.com",
            "server_names default c.d",
        )
        self.assertEqual(both.place, Place("/shop/", ("a.example.com", "b.example.com", "c.d")))
        self.assertEqual(orders("unpublished", f"autodeploy {CODE}").place, UNPUBLISHED)
        self.assertIsNone(orders("unpublished").source)
        self.assertEqual(orders("unpublished", SECURITY_MODE="jwt").place, UNPUBLISHED)

    def test_the_last_source_counts(self) -> None:
        """Of several `autodeploy` the last one is followed."""
        found = orders("autodeploy https://example.com/a", f"autodeploy {CODE}")
        self.assertEqual(found.source, Source("https://example.com/code", "main"))

    def test_what_is_for_the_front(self) -> None:
        """What the proxy is to do is kept as it was given, in order."""
        found = orders(
            f"autodeploy {CODE}",
            "expose 43000",
            "beta beep /other",
            "redirect old.example.com https://example.com/x?y=1",
            "redirect_to older.example.com http://example.com",
            "add_header X-Team a b",
            "add_response_header X-Frame DENY",
            "enable_cache_endpoint",
            "log_to_stderr",
            "nginx_location_configs proxy_read_timeout 5s;",
        ).front
        self.assertEqual(found.exposed, (43000,))
        self.assertEqual(found.betas, (("beep", "/other/"),))
        self.assertEqual(
            found.redirects,
            (
                ("old.example.com", "https://example.com/x?y=1"),
                ("older.example.com", "http://example.com"),
            ),
        )
        self.assertEqual(found.request_headers, (("X-Team", "a b"),))
        self.assertEqual(found.response_headers, (("X-Frame", "DENY"),))
        self.assertTrue(found.cached and found.to_stderr)
        self.assertEqual(found.locations, "proxy_read_timeout 5s;")
        self.assertTrue(orders(f"autodeploy {CODE}", "stop_before_autodeploy").stop_first)

    def test_wrong_words_are_refused_by_line(self) -> None:
        """Too few, too many and ill-formed words are refused with file, line and what was wrong."""
        for line, told in [
            ("autodeploy", "autodeploy URL"),
            ("autodeploy a b", "autodeploy URL"),
            ("expose 0", "is not a port"),
            ("expose 65536", "is not a port"),
            (f"expose {'1' * 5000}", "is not a port"),
            ("expose 22", "the ship's own"),
            ("expose 443", "the ship's own"),
            ("expose ４３", "is not a port"),
            ("expose 080", "the ship's own"),
            ("unpublished x", "unpublished (no words)"),
            ("beta beep", "beta GROUP PATH"),
            ("beta ../x /y", "is not the name of a group"),
            ("publish /a/../b", "is not a path"),
            ("publish /a;b", "is not a path"),
            ('redirect host https://x/"y', "is not an http URL"),
            ("redirect host ftp://x", "is not an http URL"),
            ("redirect host https://x:0/", "is not an http URL"),
            ("redirect host https://x/#y", "is not an http URL"),
            ("redirect host https://x/é", "is not an http URL"),
            ("redirect a_b https://x", "is not a host name"),
            ("proxy_for", "proxy_for HOST"),
            ("proxy_for a.b;", "is not a host name"),
            ("proxy_for $host", "is not a host name"),
            ("server_names own.conf a.b", "no template but default"),
            ("add_header X", "add_header NAME VALUE"),
            ("add_header Host x", "is set by the proxy"),
            ("add_header jwt-user x", "is set by the proxy"),
            ("add_header expect x", "is set by the proxy"),
            ("add_response_header X-Cache-Status x", "is set by the proxy"),
            ("add_header X-A  y", "is not the value of a header"),
            ("add_response_header X-A y ", "is not the value of a header"),
            ("nginx_location_configs root /;", "'root' is refused"),
            ("nginx_location_configs gzip on", "does not end with a semicolon"),
            ("nginx_location_configs gzip $x;", "no blocks, no $"),
            ("add_header X: y", "is not the name of a header"),
            ("add_header X é", "is not the value of a header"),
        ]:
            text = self.refused(line)
            self.assertTrue(text.startswith("shop/orders:2: "), (line, text))
            self.assertIn(told, text, line)

    def test_directives_over_several_lines(self) -> None:
        """What is for nginx is read as one text; what is wrong in it is told by its line."""
        several = ("proxy_read_timeout", "5s; gzip", "on;")
        found = orders(f"autodeploy {CODE}", *(f"nginx_location_configs {one}" for one in several))
        self.assertEqual(found.front.locations, "\n".join(several))
        for lines, line in (
            (("gzip on;", "proxy_read_timeout", "5s; root /;", "gzip on;"), 4),
            (("gzip on;", "proxy_read_timeout"), 3),
            (("gzip on;", "{", "gzip"), 3),
        ):
            told = self.refused(*(f"nginx_location_configs {one}" for one in lines))
            self.assertTrue(told.startswith(f"shop/orders:{line}: nginx's dir"), told)

    def test_what_no_way_can_be_made_of(self) -> None:
        """What only together is not acceptable to the proxy is refused by the file."""
        for lines, told in (
            (("proxy_for a.b", "redirect a.b https://c.d"), "names twice: a.b"),
            (("add_header X-Who me",), "x-who says who it is"),
        ):
            text = self.refused(*lines, USER_IDENTITY_HEADER="X-Who")
            self.assertTrue(text.startswith("shop/orders: "), text)
            self.assertIn(told, text)
        with self.assertRaisesRegex(Refused, "^shop/orders:1: /shop/ leads to itself$"):
            read("redirect_to_service shop")

    def test_protection_that_is_not_whole_is_no_hole(self) -> None:
        """Orders that ask for a login are refused when a setting of it is missing, which is named;
        ones that ask for nothing are public with a warning."""
        for mode, missing in [("htpasswd", "HTPASSWD"), ("jwt", "JWT_"), ("ldap", "LDAP_SERVER")]:
            self.assertIn(missing, self.refused(SECURITY_MODE=mode))
        self.assertIn("SECURITY_MODE", self.refused(SECURITY_MODE="anything"))
        with self.assertRaisesRegex(Refused, "^shop/orders: .*team.acl|^shop/orders: .*ACL"):
            orders(f"autodeploy {CODE}", files={"team.acl": File(b"ann")}, SECURITY_MODE="")
        open_to_all = orders(f"autodeploy {CODE}", SECURITY_MODE="")
        self.assertIn("public", open_to_all.warnings[0])
        self.assertEqual(orders(f"autodeploy {CODE}").warnings, ())

    def test_what_protects(self) -> None:
        """A variable or a file beside the orders makes a service ask for a password."""
        line = "ann:$apr1$6.HIGFdD$F8pMcYxtQu8yN1Jf6CNtG/"
        by_variable = orders(f"autodeploy {CODE}", SECURITY_MODE="", HTPASSWD=line)
        files = {".htpasswd": File(f"{line}\n".encode()), "docs/.htpasswd": File(b"bob:x\n")}
        by_file = orders(f"autodeploy {CODE}", SECURITY_MODE="", files=files)
        for found in (by_variable, by_file):
            self.assertEqual(found.front.protection.mode, "htpasswd")
            self.assertEqual(list(found.front.protection.users), ["ann"])
            self.assertEqual(found.warnings, ())

    def test_ports_and_origins(self) -> None:
        """A port of its own and pages that may ask are settings; what is none is refused."""
        found = orders(
            f"autodeploy {CODE}",
            PUBLISH_PORT="9000",
            CORS_ORIGINS="https://a.b, https://[::1]:8, *",
        )
        origins = ("https://a.b", "https://[::1]:8", "*")
        self.assertEqual((found.front.published, found.front.origins), (9000, origins))
        self.assertIsNone(orders(f"autodeploy {CODE}", PUBLISH_PORT="0").front.published)
        for name, value in [
            ("PUBLISH_PORT", "http"), ("PUBLISH_PORT", "70000"), ("PUBLISH_PORT", "080"),
            ("CORS_ORIGINS", "example.com"), ("CORS_ORIGINS", 'https://a";'),
            ("CORS_ORIGINS", "https://[::1"),
        ]:  # fmt: skip
            self.assertRegex(self.refused(**{name: value}), f"^shop/orders: {name}: ")

    def test_signs(self) -> None:
        """Orders may only say where a path leads: to another service, a path or a URL; nothing
        else can be said beside that."""
        self.assertEqual(read("publish a/b"), Sign("/shop/", service="/a/b"))
        self.assertEqual(read("publish /"), Sign("/shop/", service="/"))
        self.assertEqual(read("redirect_to_service /x", path=""), Sign("/", url="/x/"))
        url = "https://example.com/y"
        self.assertEqual(read(f"redirect_to_service {url}"), Sign("/shop/", url=url))
        for lines in (
            ("publish x", f"autodeploy {CODE}"), ("publish x", "unpublished"),
            ("publish x", "publish y"), ("publish x", "redirect_to_service y"),
            ("publish x", "expose 4000"), ("publish x", "proxy_for a.b"),
        ):  # fmt: skip
            with self.assertRaisesRegex(Refused, "leads elsewhere", msg=str(lines)):
                read(*lines)
        with self.assertRaisesRegex(Refused, "team.acl would not count"):
            read("publish x", files={"team.acl": File(b"ann")})

    def test_orders_that_order_nothing(self) -> None:
        """Without a source and not unpublished there is nothing to deploy, and that is said."""
        for lines in ((), ("expose 5000",)):
            with self.assertRaisesRegex(Refused, "^shop/orders: "):
                orders(*lines)

    def test_every_command_is_known_here(self) -> None:
        """What the prelude offers to bash is what is understood, no more and no less."""
        self.assertEqual(set(COMMANDS), set(USAGES))
        with self.assertRaisesRegex(Refused, "^shop/orders:1: there is no such command"):
            orders("forged x")

    def test_a_remote_has_a_source_and_nothing_else(self) -> None:
        """Of a `remote` the last `autodeploy` counts; other commands and none are refused."""
        self.assertEqual(
            remote_source("d", said(f"autodeploy {CODE}"), headquarters=HERE),
            Source("https://example.com/code", "main"),
        )
        for lines in ((), ("expose 80", f"autodeploy {CODE}")):
            with self.assertRaisesRegex(Refused, "^d/remote"):
                remote_source("d", said(*lines), headquarters=HERE)


class Jobs(SynchronousTestCase):
    def test_jobs_are_executables_with_a_schedule(self) -> None:
        """The last `#@` line of an executable beside the orders is its schedule."""
        jobs, warnings = jobs_of(
            "shop",
            {
                "hourly": File(b"#!/bin/sh\n#@ 1 * * * *\n#@ @hourly\n", True),
                "plain": File(b"#!/bin/sh\n", True),
                "deep/er": File(b"#@ @daily\n", True),
                "after_containerize": File(b"#@ @daily\n", True),
                "binary": File(b"#@ \xff\n", True),
                "idle": File(b"\n#@ whenever\n", False),
                "spaces": File(b"#@ a" + b" " * 100_000 + b"y\n", False),
            },
        )
        self.assertEqual([(job.name, job.schedule) for job in jobs], [("hourly", "@hourly")])
        advice = "not executable, so it does not run: chmod +x"
        self.assertEqual(warnings, [f"shop/idle:2: {advice}", f"shop/spaces:1: {advice}"])

    def test_wrong_schedules_are_refused(self) -> None:
        """What cron would not take is refused with file and line."""
        for schedule in (
            "* * * *",
            "60 * * * *",
            "@sometimes",
            "* * * * * *",
            "a b c d e",
            "@",
            "9" * 5000 + " * * * *",
        ):
            with self.assertRaisesRegex(Refused, "^shop/job:2: .* is not a cron expression"):
                jobs_of("shop", {"job": File(f"#!/bin/sh\n#@ {schedule}\n".encode(), True)})


class Paths(SynchronousTestCase):
    def test_what_may_be_a_path(self) -> None:
        """Directories whose names can stand in a URL are served, at any depth and at the root."""
        for path in ("", "a", "a/b/c", "A-1_2.3~x"):
            check_path(path)

    def test_what_may_not(self) -> None:
        """The ship's own paths, hidden directories, what looks like an option or needs quoting and
        what is too long are refused."""
        for path in (
            "starphleet", "starphleet/x", "~a", ".git", "a/.b", "-a", "a/-b", "a b", "é", "a;b",
            "a/../b", "a$b", "x" * 101, 'a"b', "a\nb",
        ):  # fmt: skip
            with self.assertRaisesRegex(Refused, "orders: ", msg=path):
                check_path(path)

    @given(st.text(max_size=40))
    def test_no_text_gets_through_that_nginx_would_read(self, path: str) -> None:
        """Whatever is let through consists of letters, digits and ._~- between slashes."""
        try:
            check_path(path)
        except Refused:
            return
        self.assertRegex(path, r"\A[A-Za-z0-9._~/-]*\Z")


class Sources(SynchronousTestCase):
    def test_what_orders_may_follow(self) -> None:
        """https, ssh and the short form of ssh, with a branch, a tag or a commit; and where the
        operator said that the headquarters is."""
        for text, url, ref in [
            ("https://example.com/a/b.git", "https://example.com/a/b.git", ""),
            ("https://example.com:8443/a#v1.2", "https://example.com:8443/a", "v1.2"),
            (
                "ssh://git@example.com:22/~a/b#feature/x",
                "ssh://git@example.com:22/~a/b",
                "feature/x",
            ),
            ("git@example.com:a/b.git#main", "git@example.com:a/b.git", "main"),
            ("/srv/hq.git#code", "/srv/hq.git", "code"),
        ]:
            self.assertEqual(source_of_orders(text, "o:1", headquarters=HERE), Source(url, ref))

    def test_what_they_may_not(self) -> None:
        """Other paths, other protocols, options, commands, passwords and refs that are none are
        refused with where they stand; a password is not repeated."""
        for text in (
            "", "#main", "/etc", "/srv/hq.git/../x", "../x", "x", "file:///srv/x", "http://example.com/x",
            "git://example.com/x", "ext::sh -c id", "ext::sh%20-c", "--upload-pack=id", "-x",
            "https://example.com/x --upload-pack=id", "ssh://-oProxyCommand=id/x",
            "git@-oProxyCommand=id:x", "https://example.com/../x", "https://example.com/a b",
            "https://user:hunter2@example.com/x", "https://hunter2@example.com/x",
            "HTTPS://u:hunter2@x.org/x", "ssh://u:hunter2@x.org/x", "u:hunter2@x.org:x",
            "git://u:hunter2@x.org/x", "https://x.org/x?token=hunter2", "http://u:hunter2@x.org/",
            "https://example.com/x#--all", "https://example.com/x#a..b",
            "https://example.com/x#a b",
            "https://example.com/x#", "https://example.com/\x00",
        ):  # fmt: skip
            with self.assertRaisesRegex(Refused, "^o:1: ", msg=text) as caught:
                source_of_orders(text, "o:1", headquarters=HERE)
            self.assertNotIn("hunter2", str(caught.exception))

    def test_what_an_operator_may(self) -> None:
        """An absolute path on the ship as well, as a path or a file URL."""
        for text in ("/srv/x", "file:///srv/x"):
            self.assertEqual(source_of_operator(text, "here"), Source("/srv/x"))
        for text in ("x", "./x", "/srv/../x", "/", "ext::sh", "/a\x07"):
            with self.assertRaisesRegex(Refused, "^here: ", msg=text):
                source_of_operator(text, "here")
