"""What a pusher reads."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hooks.say import Say, clean, timing


def said(*chunks: bytes) -> list[str]:
    lines: list[str] = []
    say = Say(lines.append)
    for chunk in chunks:
        say.output(chunk)
    say.header("end")
    return lines[:-1]


class Saying(SynchronousTestCase):
    def test_tool_output_is_indented_and_headers_are_not(self) -> None:
        """A pack's own `----->` lines stand beside ours, the rest below them."""
        self.assertEqual(
            said(b"-----> Python\nCollec", b"ting flask\n\n"),
            ["-----> Python", "       Collecting flask", ""],
        )

    def test_progress_bars_leave_what_stood_last(self) -> None:
        """Carriage returns do not smuggle a line over another."""
        self.assertEqual(said(b"10%\r50%\r100%\r\n"), ["       100%"])

    def test_only_colour_passes(self) -> None:
        """soft-serve CVE-2025-64494: titles, cursor moves, links and C1 codes are taken out."""
        for hostile in (
            "\x1b]0;title\x07", "\x1b[2J", "\x1b[1A", "\x9b2J", "\x1bPq\x1b\\", "\x07", "\x08",
            "\x1b]8;;http://x\x1b\\", "\x1b(0", "\x1bc", "\u202e", "\x85",
        ):  # fmt: skip
            with self.subTest(hostile=hostile):
                self.assertEqual(clean(f"a{hostile}b"), "ab")
        self.assertEqual(clean("\x1b[31mred\x1b[0m"), "\x1b[31mred\x1b[0m")
        self.assertEqual(clean("\x1b[31mred"), "\x1b[31mred\x1b[0m")

    @given(st.binary())
    def test_nothing_else_ever_passes(self, data: bytes) -> None:
        """Whatever bytes a tool prints, no control code but colour and tab comes out."""
        for line in said(data):
            rest = line.replace("\x1b[0m", "")
            while "\x1b" in rest:
                head, _, tail = rest.partition("\x1b[")
                body = tail.lstrip("0123456789;:")
                assert body.startswith("m"), line
                rest = head + body[1:]
            assert all(
                char == "\t" or (ord(char) >= 32 and not 127 <= ord(char) < 160) for char in rest
            )

    def test_a_line_without_end_is_cut(self) -> None:
        """A tool that prints no newline does not fill the memory."""
        lines = said(*[b"x" * 10_000] * 10)
        self.assertTrue(all(len(line) < 5000 for line in lines))

    def test_times_are_told_against_the_last_push(self) -> None:
        """The end of a push says how long each step took, and what it was before."""
        self.assertEqual(
            timing({"build": 0.5, "start": 0.25}, 0.8, 4.2),
            "build 0.50 s, start 0.25 s: 0.80 s in all (last push 4.20 s)",
        )
