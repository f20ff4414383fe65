"""What `starphleet logs` understands, and a line of it."""

from __future__ import annotations

import time
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Refused
from hooks.journal.lines import Event
from receiver.journal_shown import _line, asked, moment

NOW = 1_795_000_000.0


class Moments(SynchronousTestCase):
    def test_times(self) -> None:
        """So long ago, a day or a minute of the host's, or of Greenwich with a Z."""
        self.assertEqual(moment("10m", NOW), NOW - 600)
        self.assertEqual(moment("2h", NOW), NOW - 7200)
        day = datetime(2026, 11, 21)
        self.assertEqual(moment("2026-11-21", NOW), day.timestamp())
        self.assertEqual(moment("2026-11-21T12:00", NOW), day.replace(hour=12).timestamp())
        self.assertEqual(moment("2026-11-21T12:00:01Z", NOW), 1795262401.0)

    @given(st.text(max_size=20) | st.from_regex(r"[0-9T:-]{1,20}", fullmatch=True))
    def test_anything_else(self, text: str) -> None:
        """Is a time or is refused in one line."""
        try:
            moment(text, NOW)
        except Refused as error:
            self.assertEqual(len(str(error).splitlines()), 1)

    def test_lines(self) -> None:
        """There is no negative number of lines."""
        self.assertRaises(Refused, asked, None, -1, None)
        self.assertEqual(asked("shop", 5, None).lines, 5)


class Shown(SynchronousTestCase):
    def test_a_line(self) -> None:
        """When, whose it is where there are several, the process if it is not the usual one; and
        colour for a terminal alone."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW))
        job, own = Event(1, NOW, "/a", "a-1", "night", "rung"), Event(2, NOW, "", "", "ship", "up")
        self.assertEqual(_line(job, named=False, colour=False), f"{when} [night] rung")
        self.assertEqual(_line(job, named=True, colour=False), f"{when} /a [night] rung")
        self.assertEqual(_line(own, named=True, colour=False), f"{when} starphleet up")
        self.assertIn("\x1b[", _line(own, named=True, colour=True))
