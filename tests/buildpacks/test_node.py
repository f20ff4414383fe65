"""The Node pack, with real apps and real installs."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from tests.buildpacks.place import Place, Sandbox
from tests.buildpacks.scene import Scene, shared_cache

BUILD_JS = """\
require('isarray')
require('fs').appendFileSync('node_modules/ms/index.js', '//x')
console.log(process.env.NODE_ENV)
"""


def write_package(place: Place, **keys: Any) -> None:
    package = {"name": "sail", "version": "1.0.0", "private": True, "license": "MIT", **keys}
    (place.files / "package.json").write_text(json.dumps(package))


class NodeApps(Scene):
    async def answers(self, place: Place) -> None:
        built = await self.built(place)
        self.assertEqual(built.config_vars, {"NODE_ENV": "production"})
        self.assertIn("express at sea, production", await self.started(place, built).get())

    async def test_npm(self) -> None:
        """Express with package-lock.json is installed by npm ci and answers."""
        place = self.place("node/npm")
        await self.answers(place)
        self.assertIn("Installing dependencies (package-lock.json)", self.log.text)

    async def test_npm_in_a_sandbox(self) -> None:
        """The same holds behind bubblewrap, where hard links to the cache do not work."""
        await self.answers(self.place("node/npm", kind=Sandbox))
        await self.answers(self.place("node/npm", name="two", kind=Sandbox))
        self.assertIn("Using cached dependencies (package-lock.json unchanged)", self.log.text)

    async def test_yarn(self) -> None:
        """Express with yarn.lock is installed by a yarn that npm fetches once."""
        await self.answers(self.place("node/yarn"))
        self.assertIn("with yarn@1", self.log.text)
        await self.answers(self.place("node/yarn", name="two"))
        self.assertIn("Using cached dependencies (yarn.lock unchanged)", self.log.text)
        self.assertNotIn("Fetching", self.log.text)

    async def test_pnpm(self) -> None:
        """Express with pnpm-lock.yaml is installed by the pnpm that reads this lock."""
        await self.answers(self.place("node/pnpm"))
        self.assertIn("with pnpm@9", self.log.text)
        await self.answers(self.place("node/pnpm", name="two"))
        self.assertIn("Using cached dependencies (pnpm-lock.yaml unchanged)", self.log.text)

    async def test_unchanged(self) -> None:
        """With an unchanged lock the kept files themselves are in the build, whatever else changed
        in package.json."""
        await self.built(self.place("node/npm"))
        place = self.place("node/npm", name="two")
        package = json.loads((place.files / "package.json").read_text())
        (place.files / "package.json").write_text(json.dumps({**package, "version": "1.0.1"}))
        await self.built(place)
        self.assertIn("Using cached dependencies", self.log.text)
        module = place.files / "node_modules/express/index.js"
        kept = {path.stat().st_ino for path in shared_cache().glob("trees/*/express/index.js")}
        self.assertIn(module.stat().st_ino, kept)
        self.assertEqual(module.stat().st_mode & 0o222, 0, "a shared file is writable")

    async def test_build_script(self) -> None:
        """The build script has the development dependencies, the service has them not; and what the
        script writes into a dependency never reaches the cache."""
        for name in ("one", "two", "three"):
            place = self.place("node/npm", name=name)
            write_package(
                place,
                scripts={"build": "node build.js"},
                dependencies={"ms": "2.1.3"},
                devDependencies={"isarray": "2.0.5"},
            )
            (place.files / "package-lock.json").unlink()
            (place.files / "build.js").write_text(BUILD_JS)
            await self.built(place)
            self.assertIn("-----> Running the build script", self.log.text)
            self.assertIn("\nproduction\n", self.log.text)
            self.assertFalse((place.files / "node_modules/isarray").exists())
            text = (place.files / "node_modules/ms/index.js").read_text()
            self.assertEqual(text.count("//x"), 1)

    async def test_yarn_at_run_time(self) -> None:
        """A Procfile that calls yarn finds it, although the ship has none."""
        place = self.place("node/yarn")
        (place.files / "Procfile").write_text("web: yarn -s start\n")
        built = await self.built(place)
        self.assertIn("express at sea", await self.started(place, built).get())

    async def test_nothing_to_install(self) -> None:
        """An app without dependencies installs nothing, and server.js is what runs by default."""
        place = self.place()
        write_package(place)
        (place.files / "server.js").write_text(
            "require('http').createServer((q, r) => r.end('bare at sea')).listen(process.env.PORT)"
        )
        built = await self.built(place)
        self.assertIn("No dependencies to install", self.log.text)
        self.assertIn("bare at sea", await self.started(place, built).get())

    async def test_variables(self) -> None:
        """NPM_FLAGS reach npm, and a change of them is a change of what is installed."""
        place = self.place()
        write_package(place, dependencies={"semver": "7.6.3"})
        await self.built(place)
        await self.built(place, {"NPM_FLAGS": "--no-bin-links"})
        self.assertIn("Installing dependencies", self.log.text)
        self.assertIn("The node_modules in the repository is replaced", self.log.text)
        self.assertFalse((place.files / "node_modules/.bin").exists())


class NodeRefusals(Scene):
    async def refused(self, words: str, **keys: Any) -> None:
        place = self.place(name=uuid.uuid4().hex)
        for name in keys.pop("files", ()):
            (place.files / name).touch()
        write_package(place, **keys)
        self.assertIn(words, await self.refusal(place))

    async def test_refused(self) -> None:
        """What cannot be honoured is refused in words, before anything is installed."""
        await self.refused(
            "package.json asks for node 12.x; this ship has", engines={"node": "12.x"}
        )
        await self.refused('engines.node is "new"', engines={"node": "new"})
        await self.refused(
            'packageManager "bun@1.0.0" is not npm, yarn', packageManager="bun@1.0.0"
        )
        await self.refused('packageManager "npm@$(id)"', packageManager="npm@$(id)")
        await self.refused(
            "package-lock.json and yarn.lock are both there",
            files=("package-lock.json", "yarn.lock"),
        )
        place = self.place()
        (place.files / "package.json").write_text("{,}")
        self.assertIn("package.json is not JSON", await self.refusal(place))

    async def test_failing_tools(self) -> None:
        """A failing npm or build script fails the build by name and status."""
        place = self.place("node/npm")
        package = json.loads((place.files / "package.json").read_text())
        package["dependencies"]["ms"] = "0.0.77"
        (place.files / "package.json").write_text(json.dumps(package))
        said = await self.refusal(place)
        self.assertEqual(said, "node: npm could not install package-lock.json (exit 1)")
        self.assertIn("npm error", self.log.text)
        place = self.place(name="two")
        write_package(place, scripts={"build": "exit 7"})
        self.assertEqual(await self.refusal(place), "node: the build script failed (exit 7)")

    def test_fixtures_name_no_registry(self) -> None:
        """The lock files in this folder fetch from whichever registry the operator has set."""
        for lock in (Path(__file__).parent / "node").glob("*/*lock*"):
            self.assertNotRegex(lock.read_text(), "registry|resolved|tarball", lock)
