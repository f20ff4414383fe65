"""What others left open about who may use a service: rows 3 to 8 of the list of holes, each shut.

A real nginx with the real checker.
"""

from __future__ import annotations

import os
import signal
from functools import partial

from attrs import evolve

from proxy.guard.reading import protection_of
from proxy.protection import Commons, Jwt, NotProtected, Protection, Sign
from proxy.routes import Route
from tests.ports import free_port
from tests.proxy.asking import ANN, CREW, FORGED, SECRET, SITE, basic, bearer, identity
from tests.proxy.reactor import until
from tests.proxy.test_guard_door import DoorCase, now_token

RIGHT, WRONG = basic("ann", "ann's"), basic("ann", "wrong")
BY_TOKEN = Protection("jwt", jwt=Jwt(SITE, SECRET))


class HoleTests(DoorCase):
    async def test_row_3_private_networks_are_no_password(self) -> None:
        """Who comes from a private address, or says so, is asked like any other; and a name
        without its password is nobody's identity."""
        _, app = await self.guarded(CREW)
        for forwarded in ("127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1"):
            near = {"X-Forwarded-For": forwarded, "X-Real-IP": forwarded}
            self.assertEqual((await self.get(headers=near)).status, 401)
        answer = await self.get(headers={**WRONG, "X-Forwarded-For": "10.0.0.1"})
        self.assertEqual((answer.status, app.wires), (401, []))

    async def test_row_4_identity_cannot_be_sent(self) -> None:
        """No identity that a client claims, in a header of any case or in a cookie, reaches a
        service or chooses what serves it, in any mode."""
        forged = {"X-Who": "root", "X-Identity": "root", "JWT-Role": "admin", "jwt-sub": "root"}
        for mode, headers, who in (
            (Protection(), {}, None),
            (evolve(CREW, header="x-who"), RIGHT, "ann"),
            (evolve(BY_TOKEN, header="x-who"), bearer(now_token()), "ann"),
        ):
            app, proxy = self.app("hello"), self.proxy()
            led = evolve(mode, betas=(("crew", "/b"),))
            table = {
                Route("/a", (), "/a/", identity_header="x-who"): (app.backend, led),
                Route("/b", (), "/b/"): (self.app("beta").backend, Protection()),
            }
            await proxy.start(table, Commons(groups={"crew": ("root",)}))
            for cookie in (
                "starphleet_user=root; beta_a=/b",
                identity("root", FORGED.encode())["cookie"],
                f"starphleet_user={now_token(sub='root')}",
            ):
                answer = await self.get(headers={**headers, **forged, "Cookie": cookie})
                self.assertEqual((answer.status, answer.json["app"]), (200, "hello"))
                seen = self.seen(answer)
                self.assertEqual((seen.get("x-who"), seen.get("x-identity")), (who, None))
                self.assertNotEqual(seen.get("jwt-role"), "admin")
                self.assertNotEqual(seen.get("jwt-sub"), "root")
            await proxy.stop()

    async def test_row_5_the_same_on_every_way(self) -> None:
        """By path, host, port of its own, alias and cached path: who is not listed, and who has
        no token, is let in nowhere; who is and has, everywhere."""
        port = free_port()
        app, proxy = self.app("hello"), self.proxy()
        route = Route("/a", ("a.example",), "/a/", port=port, cached=True)
        commons = Commons(signs=(Sign("/alias/", service="/a"),))
        ways = (
            ("/a/", "ship", self.port),
            ("/%61/", "ship", self.port),
            ("/", "a.example", self.port),
            ("/", "ship", port),
            ("/alias/", "ship", self.port),
            ("/a_cached/", "ship", self.port),
        )
        await proxy.start({route: (app.backend, evolve(CREW, listed=("ann",)))}, commons)
        listed = evolve(BY_TOKEN, listed=("ann",))
        for protection, good, bad in (
            (None, RIGHT, ({}, basic("bob", "bob's"))),
            (listed, bearer(now_token()), ({}, bearer(now_token(sub="bob")), RIGHT)),
        ):
            if protection is not None:
                await proxy.publish(route, app.backend, protection)
            for start, host, at in ways:
                for headers in bad:
                    answer = await self.get(f"{start}x", headers, host=host, at=at)
                    self.assertIn(answer.status, (302, 401, 403), (start, host))
                answer = await self.get(f"{start}x", good, host=host, at=at)
                self.assertEqual((answer.status, self.seen(answer)["x-identity"]), (200, "ann"))

    async def test_row_6_nobody_gets_what_was_kept_for_another(self) -> None:
        """What a cached path keeps for one user it gives to this user alone."""
        await self.guarded(CREW)
        for user in ("ann", "bob"):
            mine = basic(user, f"{user}'s")
            mark = (await self.get(headers=mine)).headers["Set-Cookie"].partition(";")[0]

            async def state(headers: dict[str, str]) -> str:
                answer = await self.get("/a_cached/text", headers)
                return str(answer.headers["X-Cache-Status"])

            async def kept(headers: dict[str, str]) -> bool:
                return await state(headers) == "HIT"

            mine["Cookie"] = mark
            self.assertEqual(await state(mine), "MISS", user)
            await until(partial(kept, mine), "it to be kept")
        self.assertEqual((await self.get("/a_cached/text")).status, 401)
        self.assertEqual((await self.get("/a_cached/text", WRONG)).status, 401)

    async def test_row_7_secrets_stay_where_they_are(self) -> None:
        """The secret of tokens goes to no login service and into none of nginx's files, nor do
        hashes; the token's cookie is for TLS and no script; no secret is there by default."""
        await self.guarded(BY_TOKEN)
        answer = await self.get()
        self.assertEqual(answer.status, 302)
        self.assertNotIn(SECRET, f"{answer.headers} {answer.text}")
        sent = now_token()
        cookie = (await self.get(f"/a/x?jwt={sent}")).headers["Set-Cookie"]
        self.assertIn("HttpOnly", cookie)
        self.assertIn("SameSite=Lax", cookie)
        for secret in (SECRET, ANN, sent):
            self.assertEqual(self.told(secret), [])
        for missing in ("JWT_SECRET", "JWT_AUTH_SITE"):
            settings = {"JWT_SECRET": SECRET, "JWT_AUTH_SITE": SITE, "SECURITY_MODE": "jwt"}
            del settings[missing]
            with self.assertRaisesRegex(NotProtected, missing):
                protection_of(settings, {}, (), devmode=False)

    def told(self, secret: str) -> list[str]:
        """The files of this ship's nginx that have it, but for the one that is there for it."""
        found = (p for p in self.prefix.rglob("*") if p.is_file() and not p.is_symlink())
        return [
            p.name for p in found if secret.encode() in p.read_bytes() and p.name != "guards.json"
        ]

    async def test_row_7_a_token_is_in_no_log_without_a_checker(self) -> None:
        """A token in a URL that nobody could look at is not written down either."""
        await self.guarded(BY_TOKEN)
        sent, pid = now_token(), self.checker()
        os.kill(pid, signal.SIGSTOP)
        waiting = self.fetch(f"/a/x?jwt={sent}")
        os.kill(pid, signal.SIGKILL)
        await waiting
        self.assertNotIn(sent, (self.prefix / "logs" / "error.log").read_text())

    async def test_row_8_no_origin_is_trusted_by_default(self) -> None:
        """Nobody's pages may read answers with credentials unless they are named, and what a
        browser asks before is the guarded service's own affair: it is asked who it is."""
        await self.guarded(CREW)
        evil = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
        answer = await self.get(headers=evil, method="OPTIONS")
        self.assertEqual(answer.status, 401)
        for headers in (evil, {**evil, **RIGHT}):
            answer = await self.get(headers=headers)
            self.assertNotIn("Access-Control-Allow-Origin", answer.headers)
            self.assertNotIn("Access-Control-Allow-Credentials", answer.headers)

    async def test_row_8_named_origins_alone(self) -> None:
        """With origins named no other one is echoed, on answers and on refusals alike."""
        await self.guarded(CREW, origins=("https://good.example",))
        for origin, named in (("https://good.example", True), ("https://evil.example", False)):
            for headers in ({}, RIGHT):
                answer = await self.get(headers={"Origin": origin, **headers})
                allowed = answer.headers["Access-Control-Allow-Origin"]
                self.assertEqual(allowed, origin if named else None)
