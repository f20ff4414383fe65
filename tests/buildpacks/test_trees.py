"""The cache of finished trees, by the very functions that the packs call."""

from __future__ import annotations

import os
from pathlib import Path

from buildpacks.packs import HERE
from tests.buildpacks.place import Log, Place
from tests.buildpacks.scene import REACTOR, Scene

BEGIN = (
    f"set -euo pipefail; source {HERE}/lib/trees.sh; cache=$PWD/../cache; mkdir -p $cache/trees; "
)


class Trees(Scene):
    async def bash(self, script: str) -> tuple[int | None, str]:
        place = Place(REACTOR, self.home, self.home / "cache")
        place.files.mkdir(exist_ok=True)
        log = Log()
        outcome = await place.run(["bash", "-c", BEGIN + script], {}, log.feed)
        return outcome.status, log.data.decode()

    async def test_newest_are_kept(self) -> None:
        """The three trees that were used last are kept; being restored counts as use."""
        for key in "abc":
            self.assertEqual(await self.bash(f"mkdir {key}; tree_save {key} {key}"), (0, ""))
            old = 1_000_000_000 + ord(key)
            os.utime(self.home / f"cache/trees/{key}.used", (old, old))
        self.assertEqual(await self.bash("tree_restore a here; ls -d here"), (0, "here\n"))
        self.assertEqual(await self.bash("tree_save d a"), (0, ""))
        self.assertEqual(self.kept(), {"a", "c", "d"})

    async def test_killed(self) -> None:
        """A build that is killed while it keeps a tree leaves nothing that counts as one."""
        script = "mkdir a; touch a/f; find() { kill -9 $$; }; tree_save k a"
        self.assertNotEqual((await self.bash(script))[0], 0)
        self.assertEqual(self.kept(), set())
        self.assertEqual((await self.bash("tree_restore k here"))[0], 1)
        left = next((self.home / "cache/trees").glob("new.*"))
        os.utime(left, (1_000_000_000, 1_000_000_000))
        self.assertEqual(await self.bash("tree_save k a"), (0, ""))
        self.assertFalse(left.exists())

    async def test_keys(self) -> None:
        """A key depends on every word, and on every file's name and content."""
        keys = [
            "tree_key a b -- f",
            "tree_key ab -- f",
            "tree_key a b --",
            "echo 2 > f; tree_key a b -- f",
            "tree_key a b -- f g",
        ]
        out = [await self.bash(f"echo 1 > f; echo > g; {key}; echo $key") for key in keys]
        self.assertEqual(len({text for status, text in out if status == 0}), len(keys))

    async def test_writable(self) -> None:
        """A tree asked for as a copy may be written to, and the kept one stays as it was."""
        await self.bash("mkdir a; echo kept > a/f; tree_save k a")
        script = "tree_restore k here copy; echo mine > here/f; tree_restore k there; cat there/f"
        self.assertEqual(await self.bash(script), (0, "kept\n"))

    def kept(self) -> set[str]:
        trees: Path = self.home / "cache/trees"
        return {path.name for path in trees.iterdir() if len(path.name) == 1}
