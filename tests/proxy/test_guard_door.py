"""nginx and the checker together: a real one of each, for services that are not for everybody."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from attrs import evolve

from proxy.nginx import Proxy
from proxy.protection import Commons, Jwt, Protection
from proxy.routes import Route
from tests.proxy.app import App
from tests.proxy.asking import BOB, CREW, SECRET, SITE, basic, token
from tests.proxy.client import Answer
from tests.proxy.reactor import until
from tests.proxy.world import ProxyCase

RIGHT, WRONG = basic("ann", "ann's"), basic("ann", "wrong")


def now_token(**claims: Any) -> str:
    """A token as the real clock has it."""
    now = int(time.time())
    return token(**{"iat": now, "exp": now + 600, **claims})


class DoorCase(ProxyCase):
    timeout = 90.0

    def setUp(self) -> None:
        super().setUp()
        self.prefix.chmod(0o711)

    async def guarded(
        self, protection: Protection, commons: Commons | None = None, **more: Any
    ) -> tuple[Proxy, App]:
        """An app at `/a/`, `a.example` and `/a_cached/` that is kept by the checker."""
        app, proxy = self.app("hello"), self.proxy()
        self.route = Route("/a", ("a.example",), "/a/", cached=True, **more)
        refused = await proxy.start({self.route: (app.backend, protection)}, commons)
        self.assertEqual(refused, {})
        return proxy, app

    async def get(
        self, target: str = "/a/x", headers: dict[str, str] | None = None, **how: Any
    ) -> Answer:
        return await self.fetch(target, headers=list((headers or {}).items()), **how)

    def seen(self, answer: Answer) -> dict[str, str]:
        return {name.lower(): value for name, value in answer.json["headers"]}

    def logs(self) -> str:
        return "".join(log.read_text() for log in (self.prefix / "logs").iterdir())

    def checker(self) -> int:
        return int((self.prefix / "guard" / "pid").read_text().split()[0])


class DoorTests(DoorCase):
    async def test_from_the_password_to_the_service(self) -> None:
        """Who has the password is let in and told to the service; nobody else is."""
        _, app = await self.guarded(CREW)
        for headers in ({}, WRONG, {"X-Identity": "ann"}, {"Authorization": "Bearer x"}):
            answer = await self.get(headers=headers)
            self.assertEqual(answer.status, 401)
            self.assertIn('realm="Forbidden!"', answer.headers["WWW-Authenticate"])
        stream = {"Accept": "text/event-stream"}
        for headers in (stream, {"Upgrade": "websocket"}, {**stream, "X-Identity": "ann"}):
            self.assertEqual((await self.get("/a_cached/x", headers)).status, 401)
        self.assertEqual(app.wires, [])
        answer = await self.get("/a_cached/x", {**RIGHT, **stream, "X-Identity": "root"})
        self.assertEqual((answer.status, self.seen(answer)["x-identity"]), (200, "ann"))
        for _ in range(3):
            answer = await self.get(headers={**RIGHT, "X-Identity": "root", "jwt-role": "x"})
            seen = self.seen(answer)
            self.assertEqual((answer.status, seen["x-identity"]), (200, "ann"))
            self.assertNotIn("jwt-role", seen)
            self.assertIn("starphleet_user=", answer.headers["Set-Cookie"])

    async def test_a_change_counts_at_once(self) -> None:
        """After a publish the old password, and whoever is not listed any more, has come to an
        end, however often nginx had said yes; and the other way round."""
        proxy, app = await self.guarded(CREW)
        for protection, welcome in (
            (evolve(CREW, users={"ann": BOB}), False),
            (CREW, True),
            (evolve(CREW, listed=("bob",)), False),
            (Protection(), True),
            (CREW, True),
        ):
            for _ in range(2):
                before = await self.get(headers=RIGHT)
            await proxy.publish(self.route, app.backend, protection)
            self.assertEqual((await self.get(headers=RIGHT)).status, 200 if welcome else 401)
            self.assertIn(before.status, (200, 401, 429))
        self.assertIn((await self.get(headers=basic("ann", "bob's"))).status, (401, 429))

    async def test_groups_that_change_count_at_once(self) -> None:
        """Who joins a beta group is led there at the next request, and who leaves it no more."""
        app, beta, proxy = self.app("first"), self.app("beta"), self.proxy()
        led = evolve(CREW, betas=(("crew", "/b"),))
        await proxy.start(
            {
                Route("/a", (), "/a/"): (app.backend, led),
                Route("/b", (), "/b/"): (beta.backend, Protection()),
            }
        )
        for members, served in ((("ann",), "beta"), (("bob",), "first"), (("ann",), "beta")):
            await proxy.refit(Commons(groups={"crew": members}))
            self.assertEqual((await self.get(headers=RIGHT)).json["app"], served)

    async def test_the_checker_dies(self) -> None:
        """While it is gone nobody gets in who should not, nor anybody by a file that nobody could
        read; those who may are let in as soon as it is back."""
        _, app = await self.guarded(CREW)
        self.assertEqual((await self.get(headers=RIGHT)).status, 200)
        for number in range(2):
            old, before = self.checker(), len(app.wires)
            os.kill(old, signal.SIGKILL)
            asked = [self.get(headers=WRONG), self.get(), self.get(headers={"X-Identity": "a"})]
            for answer in [await one for one in asked]:
                self.assertIn(answer.status, (401, 429, 503))
            self.assertLessEqual(len(app.wires), before)
            fresh = {**RIGHT, "Cookie": f"n={number}"}  # no yes is remembered of it

            async def back(fresh: dict[str, str] = fresh) -> bool:
                return (await self.get(headers=fresh)).status == 200

            await until(back, "who may to be let in again", 30)
            self.assertNotEqual(self.checker(), old)

    async def test_waiting_for_the_checker(self) -> None:
        """A request that comes while the checker is busy, or stands still, waits for it."""
        await self.guarded(CREW)
        os.kill(self.checker(), signal.SIGSTOP)
        waiting = self.fetch("/a/x", headers=list(RIGHT.items()))
        refused = self.fetch("/a/x", headers=list(WRONG.items()))
        self.assertNoResult(waiting)
        os.kill(self.checker(), signal.SIGCONT)
        self.assertEqual(((await waiting).status, (await refused).status), (200, 401))

    async def test_without_what_is_written(self) -> None:
        """A guarded service of which nothing is written is a 503, whatever was remembered
        before nginx forgot it."""
        proxy, _ = await self.guarded(CREW)
        self.assertEqual((await self.get(headers=RIGHT)).status, 200)
        (self.prefix / "guard" / "guards.json").unlink()
        await proxy.refit(Commons(groups={"crew": ("ann",)}))
        (self.prefix / "guard" / "guards.json").write_text("{")
        for headers in (RIGHT, WRONG, {}):
            self.assertEqual((await self.get(headers=headers)).status, 503)


class LoginTests(DoorCase):
    async def test_login(self) -> None:
        """To the login service, back with a token, and on with a cookie; the service learns the
        claims and never sees the token in its URL."""
        _, app = await self.guarded(Protection("jwt", jwt=Jwt(SITE, SECRET)))
        answer = await self.get("/a/x?q=%2F")
        self.assertEqual(answer.status, 302)
        self.assertTrue(answer.headers["Location"].startswith(f"{SITE}?target=http%3A%2F%2Fship"))
        sent = now_token(role="crew")
        answer = await self.get(f"/a/x?q=%2F&jwt={sent}&r")
        self.assertEqual((answer.status, answer.headers["Location"]), (302, "/a/x?q=%2F&r"))
        self.assertEqual(app.wires, [])
        cookie = answer.headers["Set-Cookie"]
        for attribute in ("HttpOnly", "SameSite=Lax", "Path=/"):
            self.assertIn(attribute, cookie)
        kept = {"Cookie": cookie.partition(";")[0], "jwt-role": "root"}
        for _ in range(2):
            answer = await self.get("/a/x?q=%2F&r", kept)
            self.assertEqual((answer.status, answer.json["target"]), (200, "/x?q=%2F&r"))
            seen = self.seen(answer)
            self.assertEqual((seen["jwt-role"], seen["x-identity"]), ("crew", "ann"))

    async def test_never_to_another_host(self) -> None:
        """Whatever path a token comes with, its bearer stays on this host."""
        app, proxy = self.app("root"), self.proxy()
        by_token = Protection("jwt", jwt=Jwt(SITE, SECRET))
        await proxy.start({Route("/", (), "/"): (app.backend, by_token)})
        sent = now_token()
        for path in (
            "//evil.example",
            "/\\evil.example",
            "///evil.example",
            "/%2Fevil.example",
            "/.//evil.example",
            "/\t/evil.example",
            "http://evil.example/",
            "http://evil.example//evil.example",
        ):
            answer = await self.get(f"{path}?jwt={sent}")
            self.assertIn(answer.status, (302, 400), path)
            location = answer.headers.get("Location", "/x")
            self.assertRegex(location, r"\A/(?![/\\\s])", path)
            self.assertNotIn(sent, location)

    async def test_the_token_is_in_no_log(self) -> None:
        """Neither nginx nor the checker writes a token down, a good or a bad one."""
        await self.guarded(Protection("jwt", jwt=Jwt(SITE, SECRET)))
        good, bad = now_token(), now_token(sub="bob")[:-3]
        for sent in (good, bad):
            await self.get(f"/a/x?jwt={sent}")
            await self.get(headers={"Authorization": f"Bearer {sent}"})
        told = self.logs()
        self.assertIn("is not good", told)
        for sent in (good, bad, SECRET):
            self.assertNotIn(sent, told)
