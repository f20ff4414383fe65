"""Following: when who is asked, and what is told. Time is a clock of the test's."""

from __future__ import annotations

import gc
from collections.abc import Collection

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Unreachable
from hooks.standing import Source
from receiver.headquarters.followed import LONGEST, delay
from receiver.headquarters.following import STEPS, Following
from receiver.headquarters.source import same

A, B = "https://a.example/x", "https://b.example/y"


class Answers:
    """Answers from `refs` by URL; an exception is raised, a Deferred waited for."""

    def __init__(self) -> None:
        self.refs: dict[str, object] = {}
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    async def ask(self, url: str, refs: Collection[str]) -> dict[str, str | None]:
        self.asked.append((url, tuple(sorted(refs))))
        found = self.refs[url]
        if isinstance(found, Deferred):
            found = await found
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, dict)
        return {ref: found.get(ref) for ref in refs}


class Pulses(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.answers = Clock(), Answers()
        self.told: list[tuple[str, Source, str]] = []
        self.following = Following(
            self.clock,
            self.answers,
            moved=lambda source, commit: self.told.append(("moved", source, commit)),
            lost=lambda source, reason: self.told.append(("lost", source, reason)),
            chance=lambda: 0.5,
        )
        self.going = Deferred.fromCoroutine(self.following.go())
        self.going.addErrback(lambda _: None)
        self.addCleanup(self.going.cancel)

    def pass_by(self, seconds: float) -> None:
        self.clock.pump([5.0 / STEPS] * round(seconds * STEPS / 5))

    def test_two_refs_are_one_question(self) -> None:
        """At once, and once in each pulse."""
        self.answers.refs[A] = {"": "1", "b": "2"}
        self.following.follow([Source(A), Source(A, "b")])
        self.assertEqual(self.answers.asked, [(A, ("", "b"))])
        self.pass_by(20)
        self.assertEqual(len(self.answers.asked), 1 + 4)
        self.assertEqual(len(self.told), 2)

    def test_how_long_ago_an_answer_came(self) -> None:
        """Seconds since the last one that was good; nothing of what never answered."""
        self.answers.refs[A] = {"": "1"}
        self.assertIsNone(self.following.silence(A))
        self.following.follow([Source(A)])
        self.assertEqual(self.following.silence(A), 0)
        self.answers.refs[A] = Unreachable("no")
        self.pass_by(20)
        self.assertEqual(self.following.silence(A), 20)

    def test_a_move_is_told_once_in_whichever_direction(self) -> None:
        """Only another id counts."""
        for commit in ("1", "2", "1"):
            self.answers.refs[A] = {"": commit}
            self.following.follow([Source(A)])
            self.pass_by(10)
        self.assertEqual([said for _, _, said in self.told], ["1", "2", "1"])
        self.assertEqual(dict(self.following.known), {Source(A): "1"})

    def test_what_is_disregarded_does_not_count(self) -> None:
        """An answer to a question from before somebody moved the source is not told; the next is,
        even when it is what was known."""
        self.answers.refs[A] = {"": "1"}
        self.following.follow([Source(A)])
        late: Deferred[dict[str, str]] = Deferred()
        self.answers.refs[A] = late
        self.pass_by(6)
        self.following.disregard(Source(A))
        self.following.hurry([A])
        self.answers.refs[A] = {"": "2"}
        late.callback({"": "1"})
        self.assertEqual([said for _, _, said in self.told], ["1", "2"])

    def test_a_failure_backs_off_alone(self) -> None:
        """5 s doubling to 5 min; the other is asked each pulse; the first success recovers."""
        self.answers.refs = {A: Unreachable("gone"), B: {"": "1"}}
        self.following.follow([Source(A), Source(B)])
        self.pass_by(155)
        of = [url for url, _ in self.answers.asked]
        self.assertEqual(of.count(A), 6)  # at 0, 5, 15, 35, 75, 155
        self.assertGreaterEqual(of.count(B), 31)
        self.assertEqual(self.following.troubles, {A: "gone"})
        self.answers.refs[A] = {"": "2"}
        self.following.hurry([A + ".git/"])
        self.assertEqual(self.following.troubles, {})
        before = len(self.answers.asked)
        self.pass_by(10)
        self.assertEqual([u for u, _ in self.answers.asked[before:]].count(A), 2)
        self.assertEqual([kind for kind, s, _ in self.told if s.url == A], ["lost", "moved"])

    def test_the_longest_wait(self) -> None:
        """Five minutes, give or take a quarter."""
        self.assertEqual([delay(n, 5.0, 0.5) for n in (1, 2, 3, 99)], [5, 10, 20, LONGEST])
        self.assertLessEqual(delay(99, 5.0, 1.0), LONGEST * 1.25)

    def test_one_that_hangs_delays_nobody(self) -> None:
        """It is not asked again meanwhile; a hurry is kept until it has answered."""
        hangs: Deferred[object] = Deferred()
        self.answers.refs = {A: hangs, B: {"": "1"}}
        self.following.follow([Source(A), Source(B)])
        self.pass_by(20)
        of = [url for url, _ in self.answers.asked]
        self.assertEqual((of.count(A), of.count(B)), (1, 5))
        hurried = self.following.hurry([A])
        self.assertNoResult(hurried)
        self.answers.refs[A] = {"": "2"}
        hangs.callback({"": "1"})
        self.successResultOf(hurried)
        self.assertEqual(dict(self.following.known)[Source(A)], "2")

    def test_who_waits_may_leave(self) -> None:
        """Whoever hurries several and leaves before they have answered was cancelled, and nothing
        else went wrong."""
        self.answers.refs = {A: Deferred(), B: Deferred()}
        self.following.follow([Source(A), Source(B)])
        hurried = self.following.hurry()
        hurried.cancel()
        self.failureResultOf(hurried, CancelledError)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_ref_that_is_not_there(self) -> None:
        """Said once, with its name; the other refs of the URL are followed."""
        self.answers.refs[A] = {"": "1"}
        self.following.follow([Source(A), Source(A, "x")])
        self.pass_by(20)
        lost = [said for kind, _, said in self.told if kind == "lost"]
        self.assertEqual(lost, [f"there is no branch or tag 'x' in {A}"])
        self.assertEqual(len(self.told), 2)

    def test_forget_says_it_again(self) -> None:
        """The same commit is told once more."""
        self.answers.refs[A] = {"": "1"}
        self.following.follow([Source(A)])
        self.following.forget(Source(A))
        self.pass_by(10)
        self.assertEqual(len(self.told), 2)

    def test_what_is_left_is_not_asked(self) -> None:
        """And what comes back is told anew."""
        self.answers.refs[A] = {"": "1"}
        self.following.follow([Source(A)])
        self.following.follow([])
        before = len(self.answers.asked)
        self.pass_by(20)
        self.assertEqual(len(self.answers.asked), before)
        self.assertEqual(dict(self.following.known), {})

    def test_one_repository_has_many_urls(self) -> None:
        """With .git, a slash, a user, a port, scp-like or not."""
        for url in (
            "git@h.example:a/b.git",
            "ssh://git@h.example:22/a/b/",
            "https://H.example/a/b",
        ):
            self.assertEqual(same(url), "h.example/a/b")

    def test_a_listener_that_fails_ends_nothing(self) -> None:
        """It is logged, and the next pulse comes."""

        def fail(source: Source, commit: str) -> None:
            raise ValueError(commit)

        self.following._moved = fail
        self.answers.refs[A] = {"": "1"}
        self.following.follow([Source(A)])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.pass_by(10)
        self.assertEqual(len(self.answers.asked), 3)
