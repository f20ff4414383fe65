"""The Python pack, with real apps and real installs."""

from __future__ import annotations

import uuid
from importlib import import_module
from pathlib import Path

import uv
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from buildpacks.packs import Built
from tests.buildpacks.place import Log, Place, Sandbox, environment
from tests.buildpacks.scene import Scene, shared_cache

interpreter = import_module("buildpacks.python.interpreter")

POETRY_EXPORT = "poetry-plugin-export>=1.9,<2"
POETRY_HASH = """\
from poetry.factory import Factory
print(Factory().create_poetry().locker._get_content_hash())
"""
POETRY_PROJECT = """\
[project]
name = "pinned"
version = "1"
requires-python = ">=3.9"
dependencies = ["itsdangerous"]
[tool.poetry]
package-mode = false
"""
POETRY_LOCK = """\
[[package]]
name = "itsdangerous"
version = "2.1.2"
description = ""
optional = false
python-versions = ">=3.7"
groups = ["main"]
files = []

[metadata]
lock-version = "2.1"
python-versions = ">=3.9"
content-hash = "{}"
"""


class PythonApps(Scene):
    async def test_flask(self) -> None:
        """A Flask app with requirements.txt is installed, started by `flask run` and answers."""
        place = self.place("python/flask")
        built = await self.built(place)
        self.assertIn("-----> Python app detected", self.log.text)
        self.assertEqual(built.process_types["web"].split()[0], "flask")
        self.assertIn("flask at sea", await self.started(place, built).get())

    async def test_flask_in_a_sandbox(self) -> None:
        """The same holds behind bubblewrap: app at /app, packs mounted, a user id that owns it."""
        place = self.place("python/flask", kind=Sandbox)
        built = await self.built(place)
        self.assertIn("flask at sea", await self.started(place, built).get())

    async def test_moved(self) -> None:
        """What was built at one path runs at another."""
        place = self.place("python/flask")
        built = await self.built(place)
        moved = Place(place.reactor, self.home / "elsewhere", place.cache_directory)
        place.directory.rename(moved.directory)
        self.assertIn("flask at sea", await self.started(moved, built).get())

    async def test_django(self) -> None:
        """Django gets its static files collected and served by whitenoise, under gunicorn."""
        place = self.place("python/django")
        built = await self.built(place)
        self.assertIn("1 static file copied", self.log.text)
        self.assertEqual(built.process_types["web"], "gunicorn --bind 0.0.0.0:$PORT harbour.wsgi")
        service = self.started(place, built)
        self.assertIn("django at sea", await service.get())
        self.assertIn("color: navy", await service.get("/static/site.css"))

    async def test_collectstatic_fails(self) -> None:
        """A failing collectstatic fails the build with its output, and can be switched off."""
        place = self.place("python/django")
        (place.files / "requirements.txt").write_text("itsdangerous\n")
        said = await self.refusal(place)
        self.assertEqual(
            said, "python: collectstatic failed; DISABLE_COLLECTSTATIC=1 skips it (exit 1)"
        )
        self.assertIn("No module named 'django'", self.log.text)
        await self.built(place, {"DISABLE_COLLECTSTATIC": "1"})
        self.assertIn("Using cached dependencies", self.log.text)

    async def test_fastapi(self) -> None:
        """A pyproject.toml without a lock is enough for FastAPI under uvicorn."""
        place = self.place("python/fastapi")
        built = await self.built(place)
        self.assertIn("fastapi at sea", await self.started(place, built).get())

    async def test_uv_lock(self) -> None:
        """uv.lock is installed as it is, the project's own package too, and kept when unchanged."""
        place = self.place("python/uvlock")
        await self.tool(place, uv.find_uv_bin(), "lock", "--quiet")
        lock = (place.files / "uv.lock").read_bytes()
        await self.built(place)
        built = await self.built(place)
        self.assertIn("Using cached dependencies (uv.lock unchanged)", self.log.text)
        self.assertEqual((place.files / "uv.lock").read_bytes(), lock)
        self.assertIn("uv.lock at sea", await self.started(place, built).get())

    async def test_uv_lock_follows_the_source(self) -> None:
        """A change of the package's source is installed although the lock is the same."""
        place = self.place("python/uvlock")
        await self.tool(place, uv.find_uv_bin(), "lock", "--quiet")
        await self.built(place)
        source = place.files / "src/pier/__init__.py"
        source.write_text(source.read_text().replace("at sea", "ashore"))
        built = await self.built(place)
        self.assertIn("uv.lock ashore", await self.started(place, built).get())

    async def test_poetry_lock(self) -> None:
        """poetry.lock is read by Poetry itself: what it pins is installed, not what is newest."""
        place = self.place()
        (place.files / "pyproject.toml").write_text(POETRY_PROJECT)
        run = ("tool", "run", "--quiet", "--from", "poetry>=2,<3", "--with", POETRY_EXPORT)
        content = await self.tool(place, uv.find_uv_bin(), *run, "python", "-c", POETRY_HASH)
        (place.files / "poetry.lock").write_text(POETRY_LOCK.format(content.strip()))
        await self.built(place)
        self.assertIn("Installing dependencies (poetry.lock)", self.log.text)
        self.assertIn("itsdangerous==2.1.2", self.log.text)

    async def tool(self, place: Place, *argv: str) -> str:
        """Run a tool in the app; its output."""
        env = {**environment(), "UV_CACHE_DIR": str(shared_cache() / "uv")}
        env |= {"UV_PYTHON": "/usr/bin/python3", "HOME": str(self.home)}
        log = Log()
        outcome = await place.run(argv, env, log.feed)
        self.assertTrue(outcome.ok, log.text)
        return log.data.decode()


class PythonCache(Scene):
    def fresh(self, name: str, extra: str) -> Place:
        """A Flask app whose requirements nobody has built yet."""
        place = self.place("python/flask", name=name)
        with (place.files / "requirements.txt").open("a") as file:
            file.write(f"# {extra}\n")
        return place

    async def test_unchanged(self) -> None:
        """Unchanged requirements install nothing: the kept files themselves are in the build."""
        extra = uuid.uuid4().hex
        first, second = self.fresh("one", extra), self.fresh("two", extra)
        await self.built(first)
        self.assertNotIn("Using cached", self.log.text)
        built = await self.built(second)
        self.assertIn("Using cached dependencies (requirements unchanged)", self.log.text)
        self.assertNotIn("Installed", self.log.text)
        module = next(second.files.glob(".venv/lib/python3*/site-packages/flask/app.py"))
        name = str(module.relative_to(second.files / ".venv"))
        kept = {tree.stat().st_ino for tree in shared_cache().glob(f"trees/*/{name}")}
        self.assertIn(module.stat().st_ino, kept)
        self.assertEqual(module.stat().st_mode & 0o222, 0, "a shared file is writable")
        self.assertIn("flask at sea", await self.started(second, built).get())

    async def test_changed(self) -> None:
        """Changed requirements, also in an included file, are installed."""
        place = self.fresh("one", "-")
        (place.files / "requirements.txt").write_text("-r more.txt\n")
        (place.files / "more.txt").write_text(f"itsdangerous # {uuid.uuid4()}\n")
        await self.built(place)
        (place.files / "more.txt").write_text(f"markupsafe # {uuid.uuid4()}\n")
        await self.built(place)
        self.assertIn("Installing dependencies (requirements)", self.log.text)
        installed = {path.name for path in place.files.glob(".venv/lib/python3*/site-packages/*")}
        self.assertIn("markupsafe", installed)
        self.assertNotIn("itsdangerous", installed)

    async def test_parts_of_the_app(self) -> None:
        """Requirements that name a part of the app itself are never taken from the cache."""
        place = self.place("python/uvlock")
        (place.files / "requirements.txt").write_text(".\n")
        for word in ("at sea", "ashore"):
            source = place.files / "src/pier/__init__.py"
            source.write_text(source.read_text().replace("at sea", word))
            built = await self.built(place)
            self.assertNotIn("Using cached", self.log.text)
        self.assertIn("uv.lock ashore", await self.started(place, built).get())

    async def test_failed_install(self) -> None:
        """A failed install says which tool, file and status, and leaves nothing that counts."""
        place = self.fresh("one", uuid.uuid4().hex)
        (place.files / "requirements.txt").write_text("flask==0.0.0.1\n")
        before = set(shared_cache().glob("trees/*"))
        for _ in range(2):
            said = await self.refusal(place)
            self.assertEqual(said, "python: uv could not install requirements.txt (exit 1)")
            self.assertIn("flask==0.0.0.1", self.log.text)
        self.assertEqual(set(shared_cache().glob("trees/*")) - before, set())

    async def test_two_at_once(self) -> None:
        """Two branches may build against one cache at the same time."""
        extra = uuid.uuid4().hex
        places = [self.fresh(name, extra) for name in ("one", "two", "three")]
        builds: list[Deferred[Built]] = [
            Deferred.fromCoroutine(self.built(place)) for place in places
        ]
        for place, built in zip(places, await gatherResults(builds), strict=True):
            self.assertIn("flask at sea", await self.started(place, built).get())
        self.assertEqual(list(shared_cache().glob("trees/new.*")), [])


class PythonRefusals(Scene):
    async def refused(self, words: str, files: dict[str, str]) -> None:
        place = self.place(name=uuid.uuid4().hex)
        for name, text in files.items():
            (place.files / name).write_text(text)
        self.assertIn(words, await self.refusal(place))

    async def test_versions(self) -> None:
        """A Python that is not on the ship is refused, with what asks for it and what is there."""
        requirements = {"requirements.txt": "flask\n"}
        await self.refused(
            ".python-version asks for Python 3.99; this ship has",
            {".python-version": "3.99\n", **requirements},
        )
        await self.refused(
            "runtime.txt asks for Python 3.11.99",
            {"runtime.txt": "python-3.11.99\n", **requirements},
        )
        await self.refused(
            ".python-version says 'pypy-7'", {".python-version": "pypy-7\n", **requirements}
        )
        project = '[project]\nname = "x"\nversion = "1"\nrequires-python = "{}"\n'
        await self.refused(
            "pyproject.toml asks for Python <3.4; this ship has",
            {"pyproject.toml": project.format("<3.4")},
        )

    async def test_honoured(self) -> None:
        """A Python that is on the ship is used, and the file that asks for it may be short."""
        place = self.place("python/flask")
        (place.files / ".python-version").write_text("# why\n3\n")
        await self.built(place)
        self.assertIn("-----> Using Python 3.", self.log.text)

    async def test_unreadable_lists(self) -> None:
        """A Pipfile alone, or manage.py alone, is refused with what to do."""
        await self.refused("pipenv requirements > requirements.txt", {"Pipfile": ""})
        await self.refused("manage.py is there, but neither requirements.txt", {"manage.py": ""})
        await self.refused(
            "requirements include gone.txt, which is not there",
            {"requirements.txt": "-r gone.txt\n"},
        )


class Interpreters(SynchronousTestCase):
    def test_ranges(self) -> None:
        """Version ranges mean what PEP 440 (and Poetry's caret) say."""
        cases = [
            ("3.11.2", ">=3.10", True),
            ("3.9.18", ">=3.10", False),
            ("3.11.2", ">=3.10,<3.12", True),
            ("3.12.0", ">=3.10,<3.12", False),
            ("3.11.2", "~=3.10", True),
            ("3.11.2", "~=3.11.0", True),
            ("3.12.1", "~=3.11.0", False),
            ("3.11.2", "==3.11.*", True),
            ("3.11.2", "==3.11", False),
            ("3.11.2", "!=3.11.*", False),
            ("3.11.2", "^3.9", True),
            ("3.11.2", "3.11.2", True),
            ("3.11.2", "", True),
        ]
        for version, spec, expected in cases:
            self.assertIs(interpreter.keeps(version, spec), expected, (version, spec))
        with self.assertRaises(interpreter.Refusal):
            interpreter.keeps("3.11.2", ">=three")

    def test_asked(self) -> None:
        """The first line that says something counts, of .python-version before runtime.txt."""
        home = Path(self.mktemp())
        home.mkdir()
        self.assertEqual(interpreter.asked(home), ("", ""))
        (home / "runtime.txt").write_text("python-3.12.1\n")
        self.assertEqual(interpreter.asked(home), ("3.12.1", "runtime.txt"))
        (home / ".python-version").write_text("\n# pinned\n3.11  # minor\n")
        self.assertEqual(interpreter.asked(home), ("3.11", ".python-version"))

    def test_required(self) -> None:
        """requires-python is found, and Poetry's own table where that is missing."""
        home = Path(self.mktemp())
        home.mkdir()
        (home / "pyproject.toml").write_text('[tool.poetry.dependencies]\npython = "^3.9"\n')
        self.assertEqual(interpreter.required(home), "^3.9")
        (home / "pyproject.toml").write_text("[project]\nrequires-python = '>=3.11'\n")
        self.assertEqual(interpreter.required(home), ">=3.11")
