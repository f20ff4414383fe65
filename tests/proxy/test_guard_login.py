"""Logging in by a token: to the login service, back with a token, and on with a cookie."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from proxy.guard.asked import Answer
from proxy.guard.login import query_token, without_token
from tests.proxy.asking import (
    BY_TOKEN,
    NOW,
    SECRET,
    SITE,
    bearer,
    cookies,
    guarding,
    header,
    passes,
    token,
)

HOURS = 3600


class LoginCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.asking = guarding(BY_TOKEN)

    def with_(self, **settings: Any) -> None:
        assert BY_TOKEN.jwt is not None
        self.asking = guarding(evolve(BY_TOKEN, jwt=evolve(BY_TOKEN.jwt, **settings)))

    def ask(self, headers: dict[str, str] | None = None, uri: str = "/a/x", **how: Any) -> Answer:
        return self.successResultOf(self.asking.ask(headers, uri, **how))


class WayInTests(LoginCase):
    def test_nobody_is_sent_to_log_in(self) -> None:
        """A browser without a token goes to the login service, which learns where it wanted to go
        and nothing else (A-40)."""
        for site, scheme, uri, place in (
            (SITE, "http", "/a/x", f"{SITE}?target="),
            ("/login", "https", "/a/x?q=1&r=%20", "/login?target="),
            (f"{SITE}?app=1", "http", "/a//b%2Fc/?", f"{SITE}?app=1&target="),
        ):
            self.with_(site=site)
            answer = self.ask({"accept": "text/html,*/*;q=0.8"}, uri, scheme=scheme)
            location = header(answer, "Location")
            self.assertEqual((answer.status, cookies(answer)), (302, {}))
            self.assertTrue(location.startswith(place), location)
            said = f"{scheme}://ship:8080{uri.rstrip('?')}"
            self.assertEqual(parse_qs(urlsplit(location).query)["target"], [said])
            self.assertEqual(header(answer, "Cache-Control"), "no-store")
            self.assertNotIn(SECRET, str(answer))

    def test_a_bad_token_is_not_handed_on(self) -> None:
        """The target has no token in it, or a bad one would come back forever."""
        answer = self.ask({}, "/a/x?b=1&jwt=bad&c=2")
        self.assertTrue(unquote(header(answer, "Location")).endswith("/a/x?b=1&c=2"))

    def test_programs_are_told(self) -> None:
        """Who cannot be sent elsewhere gets a 401: by method, by what it sends, by what it
        accepts."""
        for headers, how in (
            ({"accept": "application/json"}, {}),
            ({"authorization": "Bearer bad"}, {}),
            ({"authorization": "Basic YTpi"}, {}),
            ({"x-requested-with": "XMLHttpRequest"}, {}),
            ({"upgrade": "websocket"}, {}),
            ({}, {"method": "POST"}),
        ):
            answer = self.ask(headers, **how)
            self.assertEqual(answer.status, 401, headers)
            self.assertEqual(header(answer, "WWW-Authenticate"), "Bearer")
            self.assertEqual(header(answer, "Location"), "")
        for headers in ({}, {"accept": "*/*"}, {"accept": "text/html"}):
            self.assertEqual(self.ask(headers).status, 302)

    def test_back_with_a_token(self) -> None:
        """The token leaves the address bar at once and is a cookie from then on (A-41, A-45,
        A-52)."""
        answer = self.ask({}, f"/a/x?q=%2F&jwt={token()}&r=+")
        self.assertEqual((answer.status, header(answer, "Location")), (302, "/a/x?q=%2F&r=+"))
        self.assertEqual(header(answer, "Cache-Control"), "no-store")
        cookie = cookies(answer)["jwt"]
        again = self.ask({"cookie": f"jwt={cookie.value}"})
        self.assertEqual((again.status, passes(again)["x-identity"]), (200, "ann"))

    def test_who_cannot_be_sent_on(self) -> None:
        """A POST or a websocket with a token in its URL passes as it is, and has the cookie."""
        for headers, how in (({}, {"method": "POST"}), ({"upgrade": "websocket"}, {})):
            answer = self.ask(headers, f"/a/x?jwt={token()}", **how)
            self.assertEqual((answer.status, "jwt" in cookies(answer)), (200, True))

    def test_which_token_counts(self) -> None:
        """Sent as a bearer's, and then no other; else in the URL, else as a cookie (A-41): who
        comes by an old link is still logged in, and the link is cleaned."""
        good, bad = token(), token("x" * 40)
        for headers, uri, status in (
            (bearer(good), f"/a/x?jwt={bad}", 200),
            (bearer(bad), f"/a/x?jwt={good}", 401),
            ({"cookie": f"jwt={bad}"}, f"/a/x?jwt={good}", 302),
            ({**bearer(bad), "cookie": f"jwt={good}"}, "/a/x", 401),
            ({**bearer(good), "cookie": f"jwt={bad}"}, "/a/x", 200),
        ):
            self.assertEqual(self.ask(headers, uri).status, status)
        answer = self.ask({"cookie": f"jwt={good}"}, f"/a/x?jwt={bad}&b=1")
        self.assertEqual((answer.status, header(answer, "Location")), (302, "/a/x?b=1"))

    def test_no_cookie_for_a_bearer(self) -> None:
        """A program that sends its token keeps no session."""
        self.assertNotIn("jwt", cookies(self.ask(bearer(token()))))


class UrlTests(SynchronousTestCase):
    def test_all_else_is_left_as_it_was(self) -> None:
        """Only arguments called `jwt` go, whichever they are; all other bytes stay."""
        for uri, left in (
            ("/x?jwt=a", "/x"),
            ("/x?jwt=", "/x"),
            ("/x?jwt=a&jwt=b", "/x"),
            ("/x?a=1&jwt=t&b=%26%3D&&c", "/x?a=1&b=%26%3D&&c"),
            ("/x?a?jwt=t", "/x?a?jwt=t"),
            ("/x?jwtx=1&xjwt=2&JWT=3", "/x?jwtx=1&xjwt=2&JWT=3"),
            ("/a%2Fb//c+d/?jwt=a", "/a%2Fb//c+d/"),
            ("/x", "/x"),
        ):
            self.assertEqual(without_token(uri), left)

    def test_never_elsewhere(self) -> None:
        """What a browser would take for another host becomes a path of this one."""
        for uri in (
            "//evil.example.com/?jwt=t",
            "///evil.example.com?jwt=t",
            "/\\evil.example.com?jwt=t",
            "\\\\evil.example.com?jwt=t",
            "/\\/evil.example.com",
            "https://evil.example.com/?jwt=t",
            "evil.example.com?jwt=t",
            "/\t/evil.example.com",
            "/\n\\evil.example.com",
            "\t//evil.example.com",
            "?jwt=t",
            "",
        ):
            place = without_token(uri)
            self.assertRegex(place, r"\A/(?![/\\\s])", uri)

    @settings(max_examples=500, deadline=None)
    @given(st.text("/\\\t\n\r ?&=jwt.:a@#", max_size=12))
    def test_never_elsewhere_whatever_it_is(self, uri: str) -> None:
        """No URL leads to another host, and no token is left in any."""
        place = without_token(uri)
        self.assertRegex(place, r"\A/(?![/\\\s])")
        self.assertEqual(query_token(place), "")


class CookieTests(LoginCase):
    def given_for(self, scheme: str = "http", **claims: Any) -> Any:
        answer = self.ask({}, f"/a/x?jwt={token(**claims)}", scheme=scheme)
        return cookies(answer)["jwt"]

    def test_attributes(self) -> None:
        """Scripts cannot read the token's cookie, other sites do not send it along, and one given
        by TLS never travels without."""
        for scheme, secure in (("http", ""), ("https", True)):
            cookie = self.given_for(scheme)
            self.assertEqual((cookie["httponly"], cookie["secure"]), (True, secure))
            self.assertEqual((cookie["samesite"], cookie["path"]), ("Lax", "/"))
            self.assertEqual(cookie["domain"], "")

    def test_domain(self) -> None:
        """It is the host's alone, unless JWT_COOKIE_DOMAIN says otherwise."""
        self.with_(cookie_domain="example.com", cookie="session")
        cookie = cookies(self.ask({}, f"/a/x?jwt={token()}"))["session"]
        self.assertEqual(cookie["domain"], "example.com")

    def test_lifetime(self) -> None:
        """From the URL it lasts as JWT_EXPIRATION says, and its claims stay as they were; nginx
        may have the client keep it the 15 minutes longer in which it is renewed."""
        self.with_(lifetime=1800)
        cookie = self.given_for(role="x")
        self.assertEqual(cookie["max-age"], str(1800 + 900))
        self.asking.now = NOW + 1799
        passed = passes(self.ask({"cookie": f"jwt={cookie.value}"}))
        self.assertEqual((passed["jwt-role"], passed["jwt-iat"]), ("x", str(NOW)))
        self.assertEqual(passed["jwt-exp"], str(NOW + 1800))

    def test_it_slides(self) -> None:
        """A cookie in its first half is left alone, one in its second is renewed for its whole
        time, and one that is over for 15 minutes (A-45)."""
        for age, lifetime in ((0, 0), (1799, 0), (1800, 3600), (3599, 3600), (3600, 900)):
            self.asking.now = NOW
            cookie = self.given_for()
            self.asking.now = NOW + age
            renewed = cookies(self.ask({"cookie": f"jwt={cookie.value}"})).get("jwt")
            if not lifetime:
                self.assertIsNone(renewed, age)
                continue
            assert renewed is not None, age
            passed = passes(self.ask({"cookie": f"jwt={renewed.value}"}))
            self.assertEqual(passed["jwt-exp"], str(NOW + age + lifetime), age)

    def test_it_does_not_slide_forever(self) -> None:
        """However busy a visitor is, 48 hours after the login there is another one."""
        cookie, self.asking.now = self.given_for(), NOW
        while self.asking.now < NOW + 60 * HOURS:
            answer = self.ask({"cookie": f"jwt={cookie.value}"})
            if answer.status != 200:
                break
            cookie = cookies(answer).get("jwt", cookie)
            self.asking.now += 600  # at the very end of the 48 hours it is good yet
        self.assertEqual(self.asking.now, NOW + 48 * HOURS + 600)

    def test_bound_of_a_long_token(self) -> None:
        """A login service's token that is good for a year makes no longer session."""
        cookie = self.given_for(exp=NOW + 365 * 86400, iat=NOW - 48 * HOURS + 60)
        self.assertEqual(cookie["max-age"], str(60 + 900))
        self.asking.now = NOW + 61
        self.assertEqual(self.ask({"cookie": f"jwt={cookie.value}"}).status, 302)
