"""What a push asks for."""

from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Refused
from hooks.push import read_duration, read_options, read_push

ZERO, ONE, TWO = "0" * 40, "1" * 40, "2" * 40


class Pushes(SynchronousTestCase):
    def test_one_branch_is_a_push(self) -> None:
        """A new branch and a moved one are read whole, options included."""
        push = read_push("app", "ann", [(ZERO, ONE, "refs/heads/x")], ["attach", "ttl=2h"])
        self.assertEqual(
            (push.service, push.old, push.new, push.attach, push.ttl),
            ("app--x", None, ONE, True, 7200.0),
        )
        self.assertEqual(read_push("app", "ann", [(TWO, ONE, "refs/heads/x")], []).old, TWO)

    def test_what_cannot_be_built_is_refused_in_words(self) -> None:
        """Two branches, a delete, a tag, an odd ref and a broken id each have a clear line."""
        for updates, words in [
            ([(ZERO, ONE, "refs/heads/a"), (ZERO, ONE, "refs/heads/b")], "one branch a push"),
            ([(ONE, ZERO, "refs/heads/a")], "not deleted"),
            ([(ZERO, ONE, "refs/tags/v1")], "is a tag"),
            ([(ZERO, ONE, "refs/replace/a")], "not a branch"),
            ([(ZERO, "--output=x", "refs/heads/a")], "not an object id"),
        ]:
            with self.subTest(words=words), self.assertRaisesRegex(Refused, words):
                read_push("app", "ann", updates, [])

    def test_unknown_options_are_refused(self) -> None:
        """A mistyped option is an error, not a silence."""
        for options in (["atach"], ["ttl=2"], ["ttl=0h"], ["ttl=99d"], ["ttl=1h; id"], [""]):
            with self.subTest(options=options), self.assertRaises(Refused):
                read_options(options)

    def test_durations_are_in_seconds(self) -> None:
        """s, m, h and d mean what they say."""
        self.assertEqual(
            [read_duration(text, "here") for text in ("90s", "15m", "2h", "3d")],
            [90.0, 900.0, 7200.0, 259200.0],
        )
