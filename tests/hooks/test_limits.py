"""Limits of a service: their grammar, and what a push may ask for."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from containers.interface import Limits
from hooks.errors import Refused
from hooks.limits import (
    CPUS,
    DISK,
    MB,
    MEMORY,
    PIDS,
    asked,
    over,
    read_share,
    read_size,
    require_memory,
    usual_memory,
    within,
)

NAMES = ("memory", "processes", "cpus", "disk")
SIZES = st.from_regex(r"[1-9][0-9]{0,8}[MG]", fullmatch=True)
COUNTS = st.from_regex(r"[1-9][0-9]{0,5}", fullmatch=True)
SHARES = st.integers(1, 99_999).map(lambda hundredths: f"{hundredths / 100:.2f}")
LIMITS = st.builds(
    Limits,
    memory=st.none() | st.integers(1, 2**60),
    processes=st.none() | st.integers(1, 999_999),
    cpus=st.none() | st.floats(0.01, 999.99),
    disk=st.none() | st.integers(1, 2**60),
    files=st.none() | st.integers(1, 9999),
)
# What is nearly one of them, or has its letters.
NEARLY = st.text("0123456789MGTKkmg.,-+e _\n\0٣１", max_size=12) | st.text(max_size=12)


class Grammar(SynchronousTestCase):
    def test_asked(self) -> None:
        """Each variable is its limit, in bytes, processes and CPUs."""
        environment = {MEMORY: "512M", PIDS: "64", CPUS: "0.5", DISK: "2G", "OTHER": "x"}
        wanted = Limits(memory=512 * MB, processes=64, cpus=0.5, disk=2048 * MB)
        self.assertEqual(asked(environment), wanted)

    def test_nothing_asked(self) -> None:
        """A variable that is not there, or empty, asks for nothing."""
        self.assertEqual(asked({}), Limits())
        self.assertEqual(asked({MEMORY: "", PIDS: "", CPUS: "", DISK: ""}), Limits())

    @given(SIZES, COUNTS, SHARES)
    def test_all_of_the_grammar(self, size: str, count: str, share: str) -> None:
        """Whatever is in the grammar is taken as it is meant, and fits the kernel's numbers."""
        unit = MB if size.endswith("M") else 1024 * MB
        found = asked({MEMORY: size, DISK: size, PIDS: count, CPUS: share})
        bytes_ = int(size[:-1]) * unit
        self.assertLess(bytes_, 2**63)
        self.assertEqual(found, Limits(bytes_, int(count), float(share), bytes_))

    @given(st.sampled_from([MEMORY, PIDS, CPUS, DISK]), NEARLY)
    def test_anything_else(self, name: str, text: str) -> None:
        """What is not a positive, finite amount is refused in one line that names the variable."""
        try:
            found = asked({name: text})
        except Refused as refused:
            said = str(refused)
            self.assertTrue(said.startswith(f"{name}: "), said)
            self.assertNotIn("\n", said)
            self.assertLess(len(said), 120)
            self.assertTrue(said.isascii(), said)
            return
        given_ = [value for value in (getattr(found, each) for each in NAMES) if value is not None]
        self.assertEqual(len(given_), 1 if text else 0)
        self.assertTrue(all(0 < value < 2**63 for value in given_))
        self.assertTrue(text.isascii())

    def test_refused(self) -> None:
        """The usual mistakes are refused, each by what would be right."""
        for name, texts, right in (
            (
                MEMORY,
                ["512", "0M", "512m", "1.5G", "-1M", " 1G", "1G\n", "1T", "inf"],
                "512M or 2G",
            ),
            (DISK, ["10", "0G", "1K", "٣M", "1٣M"], "512M or 2G"),
            (PIDS, ["0", "-1", "1.5", "1000000", "max", "٣", "1٣"], "number of processes"),
            (
                CPUS,
                ["0", "0.0", "0.00", "-1", "1e3", ".5", "1.", "0.001", "1000", "nan"],
                "2 or 0.5",
            ),
        ):
            for text in texts:
                with self.assertRaisesRegex(Refused, f"^{name}: .*{right}", msg=text):
                    asked({name: text})

    def test_where(self) -> None:
        """A refusal begins with the place that the reader was told."""
        with self.assertRaisesRegex(Refused, "^orders:3: 'x' is not a size"):
            read_size("x", "orders:3")
        with self.assertRaisesRegex(Refused, "^orders:3: 'x' is not a number of CPUs"):
            read_share("x", "orders:3")


class Allowing(SynchronousTestCase):
    @given(LIMITS, LIMITS)
    def test_a_push_gets_no_more(self, wanted: Limits, most: Limits) -> None:
        """Whatever a push asks for, it gets no more than the ship allows, but may get less."""
        got = over(most, within(wanted, most))
        for name in NAMES:
            asks, allows, gets = (getattr(one, name) for one in (wanted, most, got))
            if allows is not None:
                self.assertLessEqual(gets, allows)
            if asks is not None and (allows is None or asks <= allows):
                self.assertEqual(gets, asks)
            elif asks is None:
                self.assertEqual(gets, allows)

    @given(LIMITS, LIMITS)
    def test_over(self, default: Limits, wanted: Limits) -> None:
        """What orders name counts, more or less; what they do not name is the ship's."""
        got = over(default, wanted)
        for name in NAMES:
            asks = getattr(wanted, name)
            self.assertEqual(getattr(got, name), getattr(default, name) if asks is None else asks)
        kept = {name: getattr(default, name) for name in NAMES}
        self.assertEqual(evolve(got, **kept), default)

    def test_admission(self) -> None:
        """More memory than is free is refused with both figures; just as much is not."""
        for wanted, free in ((None, 0), (MB, MB), (MB, 2 * MB)):
            require_memory(wanted, free)
        with self.assertRaisesRegex(
            Refused, "^STARPHLEET_MEMORY: 512 MB do not fit, .* 100 MB free"
        ):
            require_memory(512 * MB, 100 * MB)
        with pytest.raises(Refused):
            require_memory(MB + 1, MB)

    def test_small_hosts(self) -> None:
        """A service that nobody bounds fits on a small host, and needs no large one."""
        for total, usual in ((512, 256), (1024, 512), (2048, 1024), (64 * 1024, 1024)):
            self.assertEqual(usual_memory(total * MB), usual * MB)
