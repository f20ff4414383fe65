"""The mode `private`: links that let in once, sessions that end with their key, and forgers."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from proxy.guard import passes
from proxy.guard.asked import Answer, Asked
from proxy.guard.checker import Checker
from proxy.guard.private import COOKIE, LINK
from proxy.guard.store import Guards
from proxy.protection import OWN, Crew, Member, Protection
from proxy.ranks import Deed, Rank, may
from tests.proxy.asking import KEY, NOW, cookies, header, identity, nobody
from tests.proxy.asking import passes as told

ANN, PIA, CAT = Member("ann", Rank.ADMIRAL), Member("pia", Rank.PUSHER), Member("cat", Rank.CAPTAIN)
ALL = Crew({"SHA256:a": ANN, "SHA256:p": PIA, "SHA256:c": CAT}, "ssh -p 2222 git@ship")
PRIVATE = Protection("private")


class RankTests(SynchronousTestCase):
    def test_each_rank(self) -> None:
        """What each rank may do; who has no key may do nothing."""
        everybody = {Deed.PUSH, Deed.PRIVATE}
        for rank, deeds in (
            (None, set()),
            (Rank.PUSHER, everybody),
            (Rank.CAPTAIN, {*everybody, Deed.COMMAND, Deed.CANCEL}),
            (Rank.ADMIRAL, set(Deed)),
        ):
            self.assertEqual({deed for deed in Deed if may(rank, deed)}, deeds)


class PrivateCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="guard-"))
        self.addCleanup(shutil.rmtree, self.place)
        self.links, self.sessions = passes.links(self.place), passes.sessions(self.place)
        self.crew, self.now = ALL, float(NOW)
        self.protection = PRIVATE
        self.begin()

    def begin(self) -> None:
        """A checker that knows nothing but what is on the disk."""

        def services() -> dict[str, Protection]:
            return {"hello": self.protection, "other": PRIVATE, OWN: PRIVATE}

        self.checker = Checker(
            lambda: Guards(services(), crew=self.crew),
            KEY,
            nobody,
            lambda: self.now,
            place=self.place,
        )

    def ask(
        self, uri: str = "/~hello/x", cookie: str = "", service: str = "hello", **how: Any
    ) -> Answer:
        prefix = {"hello": "/~hello", "other": "/~other", OWN: "/starphleet"}[service]
        headers = {"accept": "text/html", **({"cookie": cookie} if cookie else {})}
        given = {"method": "GET", "scheme": "http", "prefix": prefix, **how}
        asked = Asked(service, host="ship", uri=uri, headers=headers, **given)
        return self.answer(asked)

    def answer(self, asked: Asked) -> Answer:
        checking = Deferred.fromCoroutine(self.checker.check(asked))
        answer: Answer = self.successResultOf(checking)
        return answer

    def link(self, owner: str = "ann", key: str = "SHA256:a", service: str = "hello") -> str:
        return self.links.make(service, owner, key, self.now)

    def come_in(self, owner: str = "ann", key: str = "SHA256:a", **how: Any) -> str:
        """The cookie, as a browser sends it."""
        service = how.get("service", "hello")
        answer = self.ask(f"/x?{LINK}={self.link(owner, key, service)}", **how)
        self.assertEqual(answer.status, 302)
        ((name, morsel),) = cookies(answer).items()
        return f"{name}={morsel.value}"

    def refused(self, answer: Answer, title: str = "Who are you?") -> None:
        self.assertEqual((answer.status, header(answer, "Set-Cookie")), (401, ""))
        self.assertIn(title, answer.body.decode())


class LinkTests(PrivateCase):
    def test_from_link_to_service(self) -> None:
        """A link becomes a cookie, and the place without it; the service learns who it is."""
        token = self.link()
        answer = self.ask(f"/~hello/x?a=1&{LINK}={token}&b=%2F")
        self.assertEqual((answer.status, header(answer, "Location")), (302, "/~hello/x?a=1&b=%2F"))
        self.assertNotIn(token, header(answer, "Set-Cookie"))
        morsel = cookies(answer)[COOKIE]
        self.assertEqual(
            (morsel["path"], morsel["httponly"], morsel["samesite"], morsel["max-age"]),
            ("/~hello/", True, "Lax", "43200"),
        )
        answer = self.ask(cookie=f"{COOKIE}={morsel.value}")
        self.assertEqual((answer.status, told(answer)["x-identity"]), (200, "ann"))

    def test_by_https(self) -> None:
        """There the cookie is for https alone, and has the strictest prefix that it can have."""
        for prefix, name in (("/~hello", f"__Secure-{COOKIE}"), ("", f"__Host-{COOKIE}")):
            token = self.link()
            answer = self.ask(f"/x?{LINK}={token}", scheme="https", prefix=prefix)
            morsel = cookies(answer)[name]
            self.assertEqual((morsel["secure"], morsel["path"]), (True, f"{prefix}/"))
            kept = morsel.value
            for sent, status in ((name, 200), (COOKIE, 401)):
                answer = self.ask(cookie=f"{sent}={kept}", scheme="https", prefix=prefix)
                self.assertEqual(answer.status, status)

    def test_once(self) -> None:
        """The second who comes with it is refused and told how to get another, also when the
        checker was started anew; who is in already is led on."""
        token = self.link()
        kept = cookies(self.ask(f"/x?{LINK}={token}"))[COOKIE].value
        for _ in range(2):
            self.refused(self.ask(f"/x?{LINK}={token}"), "This link is over")
            self.begin()
        page = self.ask(f"/x?{LINK}={token}").body.decode()
        self.assertIn("ssh -p 2222 git@ship open hello", page)
        answer = self.ask(f"/x?{LINK}={token}", cookie=f"{COOKIE}={kept}")
        self.assertEqual((answer.status, header(answer, "Location")), (302, "/x"))

    def test_two_minutes(self) -> None:
        """A link is good for 120 s, and its file goes with the next one that is made."""
        token = self.link()
        self.now += 119.9
        self.assertEqual(self.ask(f"/x?{LINK}={token}").status, 302)
        token = self.link()
        self.now += 120
        self.refused(self.ask(f"/x?{LINK}={token}"), "This link is over")
        self.link()
        self.assertEqual(len(list(self.links.directory.iterdir())), 1)

    def test_for_one_service(self) -> None:
        """A link and a cookie are good for the service that they were made for, and the link for
        another is not used up there."""
        token = self.link()
        self.refused(self.ask(f"/x?{LINK}={token}", service="other"), "This link is over")
        self.refused(self.ask(f"/x?{LINK}={token}", service=OWN), "This link is over")
        kept = cookies(self.ask(f"/x?{LINK}={token}"))[COOKIE].value
        for service in ("other", OWN):
            self.refused(self.ask(cookie=f"{COOKIE}={kept}", service=service))

    def test_only_who_comes_by_it_uses_it(self) -> None:
        """HEAD, POST and a websocket do not use a link up."""
        token = self.link()
        for method in ("HEAD", "POST", "OPTIONS"):
            self.refused(self.ask(f"/x?{LINK}={token}", method=method))
        self.assertEqual(self.ask(f"/x?{LINK}={token}").status, 302)

    def test_who_is_in_stays_who_they_are(self) -> None:
        """A link of somebody else's changes nothing for who is in, and is used up; a new one of
        their own begins anew."""
        ann = self.come_in()
        token = self.link("pia", "SHA256:p")
        answer = self.ask(f"/x?{LINK}={token}", cookie=ann)
        self.assertEqual((answer.status, header(answer, "Set-Cookie")), (302, ""))
        self.refused(self.ask(f"/x?{LINK}={token}"), "This link is over")
        answer = self.ask(f"/x?{LINK}={self.link()}", cookie=ann)
        self.assertNotIn(ann.partition("=")[2], header(answer, "Set-Cookie"))
        self.assertEqual(told(self.ask(cookie=ann))["x-identity"], "ann")

    def test_never_to_another_host(self) -> None:
        """Whatever path a link comes with, its bearer stays on this host."""
        for path in ("//evil.example", "/\\evil.example", "///evil.example", "/\t/evil.example"):
            location = header(self.ask(f"{path}?{LINK}={self.link()}"), "Location")
            self.assertRegex(location, r"\A/(?![/\\\s])", path)


class SessionTests(PrivateCase):
    def test_while_the_key_is_there(self) -> None:
        """A key that is gone, has another owner or stands for too low a rank ends what it opened,
        at the next question; another key of the same owner is another's."""
        for service, crew, status in (
            ("hello", ALL, 200),
            (OWN, ALL, 200),
            ("hello", Crew({}), 401),
            (OWN, Crew({}), 401),
            ("hello", Crew({"SHA256:a": evolve(ANN, owner="bob")}), 401),
            ("hello", Crew({"SHA256:b": ANN}), 401),
            ("hello", Crew({"SHA256:a": evolve(ANN, rank=Rank.PUSHER)}), 200),
            (OWN, Crew({"SHA256:a": evolve(ANN, rank=Rank.CAPTAIN)}), 401),
        ):
            kept = self.come_in(service=service)
            self.crew = crew
            self.assertEqual(self.ask(cookie=kept, service=service).status, status)
            self.crew = ALL
            self.assertEqual(self.ask(cookie=kept, service=service).status, 200)

    def test_ranks(self) -> None:
        """Anybody with a key uses a private service; the ship's own pages are for admirals, also
        when somebody else has such a link."""
        for owner, key in (("ann", "SHA256:a"), ("cat", "SHA256:c"), ("pia", "SHA256:p")):
            kept = self.come_in(owner, key)
            self.assertEqual(told(self.ask(cookie=kept))["x-identity"], owner)
            token = self.link(owner, key, OWN)
            answer = self.ask(f"/starphleet/dashboard?{LINK}={token}", service=OWN)
            self.assertEqual(answer.status, 302 if owner == "ann" else 401)

    def test_from_the_host(self) -> None:
        """Who is on the host needs no key: everything is open to them there."""
        kept = self.come_in("root", "", service=OWN)
        self.crew = Crew({})
        self.assertEqual(told(self.ask(cookie=kept, service=OWN))["x-identity"], "root")

    def test_twelve_hours(self) -> None:
        """A session ends twelve hours after it began; near the end nginx remembers a yes for no
        longer than it lasts."""
        kept = self.come_in()
        self.now += 12 * 3600 - 2.5
        self.assertEqual(header(self.ask(cookie=kept), "X-Keep"), "2")
        self.now += 2.5
        self.refused(self.ask(cookie=kept))

    def test_after_a_restart(self) -> None:
        """Sessions are those of before when the checker is started anew."""
        kept = self.come_in()
        self.begin()
        self.assertEqual(self.ask(cookie=kept).status, 200)

    def test_on_the_list(self) -> None:
        """An ACL holds for whose key it is as for everybody."""
        kept = self.come_in()
        self.protection = evolve(PRIVATE, listed=("bob",))
        self.assertEqual(self.ask(cookie=kept).status, 403)

    def test_leaving(self) -> None:
        """Who leaves has no cookie, and the cookie no session; only a POST is to leave."""
        kept = self.come_in(service=OWN)
        leave = "/starphleet/leave"
        self.assertEqual(self.ask(leave, cookie=kept, service=OWN).status, 200)
        answer = self.ask(f"{leave}?", cookie=kept, service=OWN, method="POST")
        self.assertEqual(header(answer, "Location"), "/starphleet/dashboard")
        morsel = cookies(answer)[COOKIE]
        self.assertEqual((morsel.value, morsel["max-age"]), ("", "0"))
        self.refused(self.ask(cookie=kept, service=OWN))
        other = self.come_in()
        self.assertEqual(self.ask(leave, cookie=other, method="POST").status, 200)

    def test_forged(self) -> None:
        """Neither another cookie of ours, nor a made-up one, nor a file's name is a session."""
        kept = self.come_in()
        name, _, value = kept.partition("=")
        (file,) = (each.name for each in self.sessions.directory.iterdir())
        claims = base64.urlsafe_b64encode(json.dumps({"sub": "ann"}).encode()).decode()
        for forged in (
            file, value[:-1], value.swapcase(), "", "../links/x", "." * 43, "/" * 43, "%00",
            "\x00" * 43, "x" * 5000, "ann", claims, identity("ann")["cookie"].partition("=")[2],
        ):  # fmt: skip
            self.refused(self.ask(cookie=f"{name}={forged}"))
            self.assertEqual(self.ask(f"/x?{LINK}={forged}").status, 401)
        self.refused(self.ask(cookie=f"{name}={self.link()}"))
        self.refused(self.ask(cookie=f"starphleet_user={value}"))
        self.assertEqual(self.ask(cookie=f"{name}=x; {kept}").status, 200)

    def test_files(self) -> None:
        """Links and sessions are for the ship's user alone, and hold no token."""
        kept = self.come_in().partition("=")[2]
        token = self.link()
        for directory in (self.links.directory, self.sessions.directory):
            self.assertEqual(directory.stat().st_mode & 0o777, 0o700)
            for file in directory.iterdir():
                self.assertEqual(file.stat().st_mode & 0o777, 0o600)
                self.assertNotIn(token, f"{file.name}{file.read_text()}")
                self.assertNotIn(kept, f"{file.name}{file.read_text()}")
        (self.sessions.directory / ("0" * 64)).write_text("{")
        self.assertEqual(self.ask(cookie=f"{COOKIE}={kept}").status, 200)

    def test_a_program_is_told_in_two_lines(self) -> None:
        """Who takes no HTML reads how to get in."""
        asked = Asked("hello", "GET", "http", "ship", "/x", headers={"accept": "application/json"})
        answer = self.answer(asked)
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.body.count(b"\n"), 2)
        self.assertIn(b"ssh -p 2222 git@ship open hello", answer.body)
