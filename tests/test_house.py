"""Habits of the house that a machine can check."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
LEAVES = {"containers", "buildpacks", "proxy"}
MAY_IMPORT = {
    "receiver": LEAVES | {"hooks", "receiver"},
    "hooks": LEAVES | {"hooks"},
    **{leaf: {leaf} for leaf in LEAVES},
}
ONE_PLACE = {
    "twisted.conch": {"receiver/ssh"},
    "subprocess": {"containers", "receiver/local.py", "receiver/demo.py", "receiver/new.py"},
    "sqlite3": {"hooks/ledger.py"},
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def modules(room: str) -> list[Path]:
    """The Python of a room, without apps for the tests and what runs inside a build."""
    found = (path.relative_to(ROOT) for path in (ROOT / room).rglob("*.py"))
    return sorted(
        ROOT / path
        for path in found
        if not any(part.startswith("apps") for part in path.parts[:-1])
        and not (path.parts[0] == "buildpacks" and len(path.parts) > 2)
    )


Name = tuple[str, str]
"""A module, and what is defined in it."""


def classes(path: Path) -> Iterator[tuple[Name, ast.ClassDef, set[Name]]]:
    """Each class of a module, and what it is derived from."""
    tree, module = ast.parse(path.read_text()), ".".join(path.relative_to(ROOT).parts)[:-3]
    known = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base) for base in node.bases}
            yield (module, node.name), node, {known.get(base, (module, base)) for base in bases}


class House(SynchronousTestCase):
    def test_arrows_go_one_way(self) -> None:
        """A room imports only the rooms below it, as docs/design.md draws them."""
        for room, allowed in MAY_IMPORT.items():
            for path in modules(room):
                ours = {name.partition(".")[0] for name in imports(path)} & set(MAY_IMPORT)
                self.assertLessEqual(ours, allowed, path)

    def test_each_outside_thing_has_one_place(self) -> None:
        """Conch, process spawning and SQLite are touched in one place each."""
        for thing, places in ONE_PLACE.items():
            for room in MAY_IMPORT:
                for path in modules(room):
                    touches = any(
                        name == thing or name.startswith(f"{thing}.") for name in imports(path)
                    )
                    inside = any(path.is_relative_to(ROOT / place) for place in places)
                    self.assertTrue(inside or not touches, f"{path} imports {thing}")

    def test_the_environment_is_read_in_one_place(self) -> None:
        """Settings come from receiver/config.py; elsewhere os.environ is only passed on."""
        allowed = {"receiver/config.py", "receiver/demo.py", "hooks/git/relay.py"}
        for room in MAY_IMPORT:
            for path in modules(room):
                if str(path.relative_to(ROOT)) not in allowed:
                    self.assertNotIn("os.environ", path.read_text(), path)
                    self.assertNotIn("getenv", path.read_text(), path)

    def test_no_asynchronous_test_runs_in_a_synchronous_case(self) -> None:
        """An `async def test_` in a SynchronousTestCase would pass without running."""
        found = [each for path in modules("tests") for each in classes(path)]
        synchronous = {("twisted.trial.unittest", "SynchronousTestCase")}
        while more := {name for name, _, bases in found if bases & synchronous} - synchronous:
            synchronous |= more
        for name, node, _ in found:
            lost = [
                each.name
                for each in node.body
                if isinstance(each, ast.AsyncFunctionDef) and each.name.startswith("test")
            ]
            self.assertEqual(lost if name in synchronous else [], [], name)

    def test_every_test_says_its_promise(self) -> None:
        """Each test has a sentence."""
        for path in modules("tests"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(
                    node, ast.FunctionDef | ast.AsyncFunctionDef
                ) and node.name.startswith("test_"):
                    self.assertTrue(ast.get_docstring(node), f"{path}: {node.name}")
