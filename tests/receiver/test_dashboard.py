"""What the dashboard decides: states, filters, pages, charts, commits, and what the host did."""

from __future__ import annotations

import time
from typing import Any

from attrs import evolve
from twisted.internet import reactor as the_reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hooks.journal.journal import Journal
from hooks.journal.lines import DEPLOY
from hooks.layout import Layout
from hooks.ledger import Entry, Launch, Serving
from hooks.naming import Release
from hooks.settings import Settings
from hooks.standing import Place
from receiver.headquarters import ordered as phases
from receiver.web import charts, views
from receiver.web.commits import Commits, read_commit
from receiver.web.outputs import said
from receiver.web.rendering import ago, environment, link, span
from receiver.web.states import TONES, Known, State, Wish, state_of
from tests.hooks.scene import bare, commit, git, scratch

reactor: Any = the_reactor
NOW = 1_800_000_000.0
SERVING = Serving(
    Release("/shop", "a" * 12, "1" * 40), "ann", "master", Launch((), {}), "127.0.0.1", 20000,
    NOW - 100, None, Place("/shop/"),
)  # fmt: skip
PUSHED = evolve(SERVING, release=Release("shop", "a" * 12, "1" * 40), place=None)


def entry(outcome: str, at: float = NOW - 10, service: str = "shop") -> Entry:
    return Entry(service, "r", "2" * 40, "bob", at, at + 1, outcome, "it broke", {"build": 1.0})


class States(SynchronousTestCase):
    def says(self, known: Known, word: str, reason: str = "") -> None:
        state = state_of(known)
        self.assertEqual((state.word, reason in state.reason), (word, True), state)

    def test_every_state_comes_about(self) -> None:
        """Each word of the table is what some service is, for the reason that is shown."""
        wish = Wish(phases.LIVE, "")
        failed = Wish(phases.FAILED, "no such flask", "3" * 40)
        lost = Wish(phases.UNREACHABLE, "no answer")
        cases = [
            (Known(SERVING, wish=wish), "live", ""),
            (Known(PUSHED, asleep=True), "asleep", "first request"),
            (Known(evolve(SERVING, stopped=True), wish=wish), "stopped", "starphleet-start"),
            (Known(PUSHED, place=0, coming="4" * 40), "deploying", "4444444"),
            (Known(PUSHED, place=2, coming="4" * 40), "waiting", "2 ahead"),
            (Known(wish=Wish(phases.WAITING, "")), "waiting", ""),
            (Known(SERVING, wish=wish, ended="exit status 3"), "restarting", "exit status 3"),
            (Known(SERVING, wish=wish, unwell=True), "unhealthy", "health check"),
            (Known(SERVING, wish=failed), "failed", "3333333: no such flask"),
            (Known(PUSHED, entry("failed")), "failed", "2222222: it broke"),
            (Known(wish=failed), "down", "no such flask"),
            (Known(failed=entry("failed")), "down", "it broke"),
            (Known(SERVING, refused="orders:3: what?"), "refused", "orders:3"),
            (Known(SERVING, wish=lost), "out of reach", "no answer"),
            (Known(evolve(SERVING, orphaned=True)), "orphaned", "orphan-reaper"),
        ]
        for known, word, reason in cases:
            self.says(known, word, reason)
        self.assertEqual({word for _, word, _ in cases}, set(TONES))

    def test_what_failed_before_it_served_is_past(self) -> None:
        """An older failure is no state, and neither is one of an ordered service that its
        headquarters says is live."""
        self.says(Known(PUSHED, entry("failed", NOW - 500)), "live")
        self.says(Known(SERVING, entry("failed"), Wish(phases.LIVE, "")), "live")

    def test_a_push_that_came_to_nothing_is_shown_for_a_day(self) -> None:
        """What never served is on the list while somebody may still look for it."""
        failed = Known(failed=entry("failed", NOW - 3600))
        self.assertTrue(views.is_shown(failed, NOW))
        self.assertFalse(views.is_shown(failed, NOW + 86400))
        self.assertFalse(views.is_shown(Known(), NOW))
        self.assertTrue(views.is_shown(Known(place=1), NOW))


class Lists(SynchronousTestCase):
    def setUp(self) -> None:
        words = ("live", "failed", "live", "orphaned", "deploying")
        self.rows = [
            views.Row(f"/s{at}", "", str(at) * 40, "ann", NOW - at, State(word), ordered=True)
            for at, word in enumerate(words)
        ]

    def test_a_query_finds_what_is_shown(self) -> None:
        """Every word has to be in the name, commit, author, owner or state, in any case."""
        found = [one.service for one in views.matching(self.rows, "ANN s3", "")]
        self.assertEqual(found, ["/s3"])
        self.assertEqual(views.matching(self.rows, "ann nothing", ""), [])

    def test_a_state_or_trouble_is_picked(self) -> None:
        """A state's word means it alone, `trouble` all that is not as it should be."""
        for state, services in (("live", ["/s0", "/s2"]), ("trouble", ["/s1", "/s3"]), ("x", [])):
            found = [one.service for one in views.matching(self.rows, "", state)]
            self.assertEqual(found, services, state)
        self.assertEqual(views.counts(self.rows)["trouble"], 2)

    def test_the_worst_comes_first(self) -> None:
        """By state; a dash before the order turns it over, and an unknown one is by name."""
        order = [one.service for one in views.ordered_by(self.rows, "state")]
        self.assertEqual(order, ["/s1", "/s3", "/s4", "/s0", "/s2"])
        self.assertEqual(views.ordered_by(self.rows, "-service")[0].service, "/s4")
        self.assertEqual(views.ordered_by(self.rows, "nonsense")[0].service, "/s0")

    def test_pages_are_never_beyond_the_last(self) -> None:
        """A number that is too large is the last page, an empty list has one page."""
        page = views.page_of(range(250), 9)
        self.assertEqual((page.number, page.pages, page.first, page.last), (3, 3, 201, 250))
        empty: views.Paged[int] = views.page_of([], 2)
        self.assertEqual((empty.number, empty.pages, empty.first, empty.last), (1, 1, 0, 0))

    def test_a_place_counts_all_that_come_before(self) -> None:
        """Those that run and those that wait; what runs has place 0."""
        self.assertEqual(views.places("c", {"a", "b"}, ["d", "c"]), 3)
        self.assertEqual(views.places("a", {"a", "b"}, ["a"]), 0)


class Charts(SynchronousTestCase):
    def test_a_hole_is_a_hole(self) -> None:
        """Minutes without a sample are not bridged; what lies beyond the day is not drawn."""
        hours = [20.0, 19.9, 5.0, 4.9, 30.0]
        chart = charts.of_day([(NOW - 3600 * h, 0.5) for h in hours], NOW, 1.0, "CPU", "%")
        self.assertEqual((len(chart.lines), len(chart.areas)), (2, 2))

    def test_the_text_says_what_the_chart_shows(self) -> None:
        """Average and highest with its time; without samples that nothing is known."""
        chart = charts.of_day([(NOW - 60, 0.1), (NOW - 900, 0.3)], NOW, 1.0, "CPU", "%")
        self.assertIn("CPU over the last day: 20 % on average, 30 % at most, at ", chart.text)
        self.assertIn("nothing is known", charts.of_day([], NOW, 1.0, "CPU", "%").text)

    def test_the_steps_fill_the_longest_bar(self) -> None:
        """Each step begins where the one before it ends."""
        first, second = charts.bars({"build": 3.0, "start": 1.0}, 4.0)
        self.assertEqual((first.begins, first.width), (0.0, 75.0))
        self.assertEqual((second.begins, second.width), (75.0, 25.0))


class Words(SynchronousTestCase):
    def test_spans_are_short(self) -> None:
        """Two units at most, and hundredths for what is quick."""
        for seconds, text in (
            (0.4, "0.40 s"), (12.9, "12 s"), (120, "2 min"), (7500, "2 h 5 min"),
            (90000, "1 d 1 h"), (86400, "1 d"), (-3, "0.00 s"),
        ):  # fmt: skip
            self.assertEqual(span(seconds), text)
        self.assertEqual(ago(NOW - 7300, NOW), "2 h ago")
        self.assertEqual(ago(NOW + 5, NOW), "just now")

    def test_what_is_served_is_a_commit_or_a_date(self) -> None:
        """Of a commit its first digits are shown, of a working directory when it was so."""
        shown = environment().from_string('{% from "parts.html" import commit %}{{ commit(id) }}')
        self.assertIn(">abcdef0<", shown.render(id="abcdef0" * 6))
        told = shown.render(id="d261121d1814230123456789")
        self.assertIn(">working directory of 2026-11-2", told)

    def test_a_link_keeps_what_is_not_changed(self) -> None:
        """What becomes empty leaves the address; all is quoted."""
        query = {"q": 'a"b', "page": "3"}
        self.assertEqual(link("/x", query, {"page": None}), "/starphleet/dashboard/x?q=a%22b")


class OfCommits(TestCase):
    def test_odd_commits_are_read_as_far_as_they_can_be(self) -> None:
        """Names of many words, no name, no message, bytes that are no text, colours."""
        made = read_commit(b"tree 1\nauthor A. B C <a@b> 12 +0100\n\nOne\nline\n\nMore\n")
        self.assertEqual((made.author, made.subject, made.when), ("A. B C", "One line", 12.0))
        made = read_commit(b"tree 1\nauthor  <> 12 +0000\n\n\n\xff\x1b[31mred\x1b]0;x\x07\n")
        self.assertEqual((made.author, made.subject), ("", "\ufffdred"))
        self.assertEqual(read_commit(b"").subject, "")

    async def test_commits_are_learnt_once(self) -> None:
        """What git has is known after one reading of each repository, and what it has not is not
        asked for again for a while."""
        tree = scratch(self) / "tree"
        first, second = commit(tree, {"a": "1"}), commit(tree, {"a": "2"})
        repository = bare(scratch(self) / "r.git")
        git(tree, "push", "-q", str(repository.path), "master")
        asked: list[Any] = []

        async def counted(argv: Any, **more: Any) -> Any:
            asked.append(argv)
            return await repository.git(argv, **more)

        commits, clock = Commits(reactor, Clock().seconds), evolve(repository, git=counted)
        missing = evolve(clock, path=scratch(self) / "none.git")
        wanted = [(clock, first), (clock, second), (clock, "e" * 40), (missing, first)]
        for _ in range(2):
            await commits.learn(wanted, 30)
        self.assertEqual(len(asked), 1)
        made = commits.known(first)
        assert made is not None
        self.assertEqual((made.author, made.subject), ("Ann", "a change"))
        self.assertIsNone(commits.known("e" * 40))


class OfOutputs(TestCase):
    async def test_a_deploy_is_found_in_what_was_written_then(self) -> None:
        """Its own lines alone, the last ones and how many were before; of one that fell off, or
        was never written down, none."""
        layout = Layout(scratch(self) / "ship")
        layout.prepare()
        journal = Journal(reactor, layout, Settings())
        await journal.open()
        self.addCleanup(journal.close)
        for number in range(20):
            journal.write("shop", "r", DEPLOY, [f"line {number}"])
            journal.write("shop", "other", DEPLOY, ["of another release"])
            journal.write("shop", "r", "web", ["of the service"])
        await journal.settle()
        now = time.time()
        lines, before = await said(journal, entry("live", now - 1), 5)
        self.assertEqual((lines[0], lines[-1], before), ("line 15", "line 19", 15))
        self.assertEqual(await said(journal, entry("live", now - 3600), 5), ([], 0))
        self.assertEqual(await said(journal, entry("live", now + 3600), 5), ([], 0))
