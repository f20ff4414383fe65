"""The pages of the dashboard, each from a query to HTML.

A page is whole without a script, and its address says all that it shows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from attrs import evolve
from twisted.web.server import Request

from hooks.journal.journal import Journal
from hooks.journal.lines import Event, Wanted
from hooks.ledger import Entry
from hooks.say import plain
from hooks.settings import git_address
from hooks.vitals import Vitals
from receiver.web import views
from receiver.web.outputs import said
from receiver.web.rendering import environment, link
from receiver.web.site import PATH, owner
from receiver.web.survey import Survey
from receiver.web.tiles import tiles
from receiver.web.views import Deploy, Going, Paged, Row

PATIENCE = 0.15  # seconds that a page waits for git to tell of commits
LINES = (200, 1000, 5000)  # of a log that may be shown at once
LOOKED_THROUGH = 20_000  # lines that are searched
HISTORY = 50  # deploys on one page
OUTPUT = 500  # lines of a deploy's output, if not all are asked for
MOST_OUTPUT = 10_000
MOST_QUERY = 200  # characters of a parameter
STREAM = f"{PATH}logstream"
KEPT = frozenset(
    ["q", "state", "sort", "page", "name", "outcome", "service", "release", "n", "still"]
)
"""What of a query the links of a page go on with."""

Query = Mapping[str, str]


def number(text: str) -> int:
    """A page's number; what is none is the first."""
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 8 else 1


def read_query(request: Any) -> dict[str, str]:
    """The last value of each parameter, as text without control codes, bounded."""
    return {
        name.decode("utf-8", "replace"): plain(values[-1].decode("utf-8", "replace"))[:MOST_QUERY]
        for name, values in request.args.items()
    }


class Dashboard:
    """Answers for each page. `journal` and `vitals` are the ship's."""

    def __init__(self, survey: Survey, journal: Journal, vitals: Vitals) -> None:
        self._survey = survey
        self._journal = journal
        self._vitals = vitals
        self._templates = environment()
        self._version = version("starphleet")

    async def overview(self, request: Request, query: Query) -> bytes:
        """The ship, its host, and its services."""
        now, survey = time.time(), self._survey
        rows = await survey.rows(now)
        state, words = query.get("state", ""), query.get("q", "")
        sort = query.get("sort") or "state"
        found = views.ordered_by(views.matching(rows, words, state), sort)
        paged = views.page_of(found, number(query.get("page", "")))
        await survey.learn([(one.service, one.source, one.commit) for one in paged.items], PATIENCE)
        return self._page(
            request, query, "overview.html", "", now,
            refresh=5, here="services", q=words, state=state, sort=sort, all=len(rows),
            paged=evolve(paged, items=[self._told(one) for one in paged.items]),
            counts=views.counts(views.matching(rows, words, "")),
            troubles=survey.troubles(), vitals=tiles(self._vitals, now),
            going=survey.going(),
        )  # fmt: skip

    async def service(self, request: Request, query: Query) -> bytes:
        """One service: what serves, its log, its history."""
        now, survey, name = time.time(), self._survey, query.get("name", "")
        rows = {one.service: one for one in await survey.rows(now)}
        paged = await self._history(query, service=name)
        if name not in rows and not paged.total:
            return self._missing(request, query, f"Nothing is known of {ascii(name)[1:-1]}", now)
        row = rows.get(name)
        wanted = {row.commit} if row else set()
        wanted |= {entry.commit for entry in paged.items}
        await survey.learn(
            [(name, row.source if row else "", commit) for commit in wanted], PATIENCE
        )
        going = [one for one in survey.going() if one.service == name]
        return self._page(
            request, query, "service.html", "/service", now,
            refresh=5, here="services", name=name, one=self._told(row) if row else None,
            serving=await survey.ship.serving(name), going=going,
            paged=self._with_commits(paged), **await self._lines([name], 200, ""),
        )  # fmt: skip

    async def deploys(self, request: Request, query: Query) -> bytes:
        """What is under way and waits, and everything that ended."""
        now, survey = time.time(), self._survey
        outcome = query.get("outcome", "")
        paged, going = await self._history(query, outcome=outcome or None), survey.going()
        wanted = [(one.service, "", one.commit) for one in (*paged.items, *going)]
        await survey.learn(wanted, PATIENCE)
        return self._page(
            request, query, "deploys.html", "/deploys", now,
            refresh=2, here="deploys", outcome=outcome,
            going=[evolve(one, made=survey.commits.known(one.commit)) for one in going],
            paged=self._with_commits(paged),
        )  # fmt: skip

    async def deploy(self, request: Request, query: Query) -> bytes:
        """One deploy and what it says, while it says it and after."""
        now, survey = time.time(), self._survey
        service, release = query.get("service", ""), query.get("release", "")
        most = MOST_OUTPUT if query.get("all") else OUTPUT
        for one in survey.going():
            if (one.service, one.release) == (service, release):
                lines, left_out = list(one.lines[-most:]), max(0, len(one.lines) - most)
                return await self._deploy(request, query, one, None, now, lines, left_out)
        entries, _ = await survey.ship.ledger.page(1, service=service, release=release)
        if not entries:
            return self._missing(request, query, "There was no such deploy", now)
        lines, left_out = await said(self._journal, entries[0], most)
        return await self._deploy(request, query, None, entries[0], now, lines, left_out)

    async def _deploy(
        self, request: Request, query: Query, one: Going | None, entry: Entry | None, now: float,
        lines: Sequence[str], left_out: int,
    ) -> bytes:  # fmt: skip
        """The page of a deploy, of which there is `one` that goes on or the `entry` of its end."""
        survey, known = self._survey, one or entry
        assert known is not None
        began = known.began if isinstance(known, Going) else known.started
        await survey.learn([(known.service, "", known.commit)], PATIENCE)
        made = survey.commits.known
        return self._page(
            request, query, "deploy.html", "/deploy", now,
            refresh=1 if one else 0, here="deploys", one=one, known=known,
            ended=views.deploys([entry], made)[0] if entry else None,
            began=began, made=made(known.commit),
            lines=lines, left_out=left_out,
        )  # fmt: skip

    async def logs(self, request: Request, query: Query) -> bytes:
        """The end of the journal, of all services or of some."""
        now, asked = time.time(), query.get("service")
        services = [] if asked in (None, "*") else [str(asked)]
        n = next((each for each in LINES if query.get("n") == str(each)), LINES[0])
        names = sorted(await self._survey.ship.ledger.serving())
        return self._page(
            request, query, "logs.html", "/logs", now, refresh=0, here="logs",
            names=[*names, *(one for one in services if one and one not in names)], n=n,
            **await self._lines(services, n, query.get("q", "")),
        )  # fmt: skip

    async def _lines(self, services: Sequence[str], count: int, words: str) -> dict[str, Any]:
        """What `lines.html` shows: the last lines that have all `words`."""
        wanted, newest = Wanted(frozenset(services)), self._journal.newest
        looked_through = max(count, LOOKED_THROUGH if words else 0)
        events = await self._journal.last(looked_through, wanted)
        found = [one for one in events if _has(one, words.casefold().split())]
        return {
            "services": services, "events": found[-count:], "newest": newest, "lq": words,
            "stream": STREAM,
        }  # fmt: skip

    async def _history(
        self, query: Query, *, service: str | None = None, outcome: str | None = None
    ) -> Paged[Any]:
        ledger, at = self._survey.ship.ledger, number(query.get("page", ""))
        asked = partial(ledger.page, HISTORY, service=service, outcome=outcome)
        entries, total = await asked((at - 1) * HISTORY)
        if not entries and total:
            at = -(-total // HISTORY)
            entries, total = await asked((at - 1) * HISTORY)
        return Paged(entries, at, total, HISTORY)

    def _with_commits(self, paged: Paged[Any]) -> Paged[Deploy]:
        made = self._survey.commits.known
        return Paged(views.deploys(paged.items, made), paged.number, paged.total, paged.size)

    def _told(self, one: Row) -> Row:
        return evolve(one, made=self._survey.commits.known(one.commit))

    def _missing(self, request: Request, query: Query, heading: str, now: float) -> bytes:
        request.setResponseCode(404)
        text = "A push that failed is shown for a day, and what serves for as long as it does."
        return self._page(
            request, query, "missing.html", "", now, heading=heading, text=text, refresh=0, here=""
        )

    def _page(
        self, request: Request, query: Query, template: str, path: str, now: float, **shown: Any
    ) -> bytes:
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        asked = {name: value for name, value in query.items() if name in KEPT}
        page = self._templates.get_template(template).render(
            ship=self._ship(), now=now, who=owner(request), still="still" in asked,
            to=lambda **changes: link(path, asked, changes), **shown,
        )  # fmt: skip
        return page.encode()

    def _ship(self) -> dict[str, Any]:
        survey = self._survey
        settings, loop = survey.ship.settings, survey.loop
        return {
            "name": plain(settings.ship_name or settings.host),
            "address": settings.host,
            "git": git_address(settings),
            "began": survey.began,
            "version": self._version,
            "headquarters": str(loop.location) if loop.location else "",
            "commit": loop.commit,
            "certificates": survey.certificates(),
            "going": len(survey.deploys.underway),
        }


def _has(event: Event, words: Sequence[str]) -> bool:
    text = f"{event.service} {event.process} {event.content}".casefold()
    return all(word in text for word in words)
