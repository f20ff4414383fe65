"""What a worker of nginx has at hand of the guard's answers."""

from __future__ import annotations

from tests.proxy.app import Request
from tests.proxy.reactor import until
from tests.proxy.sentry import Verdict
from tests.proxy.test_admission import ANN, GuardedCase


def for_a_second(request: Request) -> Verdict:
    return "200 OK", ("X-Identity: ann", "X-Keep: 1"), b""


class AtHandTests(GuardedCase):
    async def test_a_yes_ends_while_it_is_asked_for(self) -> None:
        """A yes for a second is asked for again after it, however often it was used."""
        await self.guarded("hello")
        sentry = self.sentry(for_a_second)

        async def again() -> bool:
            await self.fetch("/~hello/", headers=[ANN])
            return len(sentry.asked) > 1

        await until(again, "the guard is asked again", 5.0)
