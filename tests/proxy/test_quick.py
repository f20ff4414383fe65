"""What a client may not say of itself is found wherever it stands among its headers."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.protection import Protection
from proxy.routes import Route
from tests.proxy.test_admission import GuardedCase

CLAIMS = (("X-Identity", "root"), ("X-Who", "root"), ("JWT-Role", "a"), ("jwt-", "b"))
KEPT = (("X-Identities", "1"), ("X-Idontity", "2"), ("Jwt", "3"), ("J", "4"), ("X-Whom", "5"))


class ClaimTests(GuardedCase):
    async def seen_of(self, headers: Sequence[tuple[str, str]]) -> dict[str, str]:
        return self.seen(await self.fetch("/a/", headers=headers))

    async def test_among_few_and_many(self) -> None:
        """No claim reaches an app, be it the first of few headers, the last of many, or said again;
        what only looks like one does."""
        app, proxy = self.app("hello"), self.proxy()
        route = Route("/a", (), "/a/", identity_header="x-who")
        await proxy.start({route: (app.backend, Protection())})
        kept = {name.lower(): value for name, value in KEPT}
        for count in (0, 1, 5, 6, 7, 8, 20, 150, 300):
            others = [(f"X-Other-{number}", "x") for number in range(count)]
            for headers in (
                [*CLAIMS, *KEPT, *others],
                [*others, *KEPT, *CLAIMS],
                [*CLAIMS, *others, *CLAIMS, *KEPT],
            ):
                seen = await self.seen_of(headers)
                self.assertEqual({name: seen.get(name) for name in kept}, kept)
                self.assertEqual(sum(name.startswith("x-other-") for name in seen), count)
                self.assertFalse({name.lower() for name, _ in CLAIMS} & set(seen))
        for claim in CLAIMS:
            self.assertNotIn(claim[0].lower(), await self.seen_of([claim]))
