"""The buildpack protocol with packs written for the purpose, the Procfile, and the launch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from buildpacks.build import build, parse_release
from buildpacks.launch import launch_argv, launch_script, write_env_dir
from buildpacks.output import Tail
from buildpacks.packs import PROVIDED, BuildError, Built, Pack
from buildpacks.procfile import parse_procfile, web_command
from tests.buildpacks.place import Log, Place
from tests.buildpacks.scene import REACTOR, Scene

BUILT = Built("null", "Procfile", {}, {})


class Protocol(Scene):
    def pack(self, name: str, **programs: str) -> Pack:
        """A pack of bash programs; the ones not given say no, or do nothing."""
        home = self.home / name
        (home / "bin").mkdir(parents=True)
        for program, text in {"detect": "exit 1", "compile": ":", **programs}.items():
            file = home / "bin" / program
            file.write_text(f"#!/bin/bash\n{text}\n")
            file.chmod(0o755)
        return Pack(name, home, looks_for=f"{name}.txt")

    async def run_build(self, *packs: Pack, chosen: Pack | None = None) -> Built:
        place, self.log = self.place(), Log()
        write_env_dir(place.directory / "env", {"COLOUR": "blue"})
        say, output = self.log.said.append, self.log.feed
        return await build(place, packs, chosen=chosen, env={"ASKED": "1"}, say=say, output=output)

    async def failed(self, *packs: Pack, chosen: Pack | None = None) -> BuildError:
        try:
            await self.run_build(*packs, chosen=chosen)
        except BuildError as error:
            return error
        raise AssertionError("the build did not fail")

    async def test_order(self) -> None:
        """The first pack that says yes is used, and the order of asking is printed."""
        one = self.pack("one")
        two = self.pack(
            "two", detect="echo Two; echo noise >&2", release="echo 'config_vars: {A: 1}'"
        )
        three = self.pack("three", detect="echo Three")
        built = await self.run_build(one, two, three)
        self.assertEqual(built, Built("two", "Two", {"A": "1"}, {}))
        self.assertEqual(
            self.log.said,
            ["-----> Asking the buildpacks in order: one, two, three", "-----> Two app detected"],
        )

    async def test_detect_is_killed(self) -> None:
        """A detect that does not come to its end is named, and no other is taken; what one says
        that says no is nobody's name."""
        one = self.pack("one", detect="echo One; exit 1")
        killed = self.pack("killed", detect="kill -9 $$")
        error = await self.failed(one, killed, self.pack("two", detect="echo Two"))
        self.assertEqual(str(error), "killed: bin/detect failed (signal 9)")
        built = await self.run_build(one, self.pack("three", detect="printf ' Three'"))
        self.assertEqual(built.detected, "Three")
        (self.home / "gone" / "bin").mkdir(parents=True)
        built = await self.run_build(Pack("gone", self.home / "gone"), self.pack("four", detect=""))
        self.assertEqual(built.detected, "four")
        much = self.pack("much", detect="yes | head -c 100000; exit 1")
        error = await self.failed(much, self.pack("five", detect="echo Five"))
        self.assertEqual(str(error), "much: bin/detect prints more than 65536 bytes")

    async def test_arguments(self) -> None:
        """compile gets its arguments, STACK and REQUEST_ID, and its output is passed on."""
        text = 'echo "$1 $2 $(<$3/COLOUR) $STACK $ASKED"; [[ $REQUEST_ID =~ ^[0-9a-f-]{36}$ ]]'
        await self.run_build(self.pack("one", detect="exit 0", compile=text))
        self.assertRegex(self.log.data.decode(), "^[^ ]+/app [^ ]+ blue")
        self.assertIn(" blue heroku-22 1\n", self.log.data.decode())
        self.assertIn("-----> one app detected", self.log.said)

    async def test_chosen(self) -> None:
        """A chosen pack is used even if its detect fails, and no other is asked."""
        chosen = self.pack("chosen", detect="exit 1", compile="echo compiled")
        other = self.pack("other", detect="exit 0")
        built = await self.run_build(other, chosen=chosen)
        self.assertEqual(built.pack, "chosen")
        self.assertIn("compiled", self.log.text)

    async def test_no_match(self) -> None:
        """No match says what was looked for, and what would do."""
        error = await self.failed(self.pack("one"), self.pack("two"))
        self.assertIn("looked for one.txt (one); two.txt (two)", str(error))
        self.assertIn("Procfile", str(error))
        self.assertIn("BUILDPACK_URL", str(error))

    async def test_compile_fails(self) -> None:
        """A failing compile fails with the pack's own last complaint, else with its status."""
        words = "echo one; echo ' !     the sail is torn'; echo ' !'; exit 3"
        error = await self.failed(self.pack("one", detect="exit 0", compile=words))
        self.assertEqual(str(error), "one: the sail is torn")
        self.assertEqual(error.tail, ("one", " !     the sail is torn", " !"))
        error = await self.failed(self.pack("two", detect="exit 0", compile="echo a; exit 3"))
        self.assertEqual(str(error), "two: bin/compile failed (exit 3)")

    async def test_release_fails(self) -> None:
        """A release that fails, or prints what is not one, is refused by name."""
        cases = {
            "exit 4": "bin/release failed (exit 4)",
            "echo '- a'": "its YAML is not a mapping",
            "echo '{'": "not YAML, line 2",
            "echo 'config_vars: {A=B: 1}'": "config_vars has a bad name 'A=B'",
            "yes aaaaaaa | head -c 20000": "prints more than 16384 bytes",
        }
        for number, (text, words) in enumerate(cases.items()):
            pack = self.pack(f"pack{number}", detect="exit 0", release=text)
            self.assertIn(words, str(await self.failed(pack)), text)

    def place(self, fixture: str = "", *, name: str = "one", kind: type[Place] = Place) -> Place:
        return super().place(fixture, name=f"place{len(list(self.home.iterdir()))}", kind=kind)


class Provided(SynchronousTestCase):
    def test_packs_are_whole(self) -> None:
        """Every provided pack has executable programs, and one order."""
        self.assertEqual([p.name for p in PROVIDED], ["ruby", "python", "node", "static", "null"])
        for pack in PROVIDED:
            for program in ("detect", "compile", "release"):
                self.assertTrue(os.access(pack.directory / "bin" / program, os.X_OK), pack.name)

    def test_release_is_text(self) -> None:
        """Every value of a release is the text that was written, never YAML's idea of it."""
        text = "config_vars:\n  A: 080\n  B: yes\n  C: 'x y'\naddons: [db]\n"
        self.assertEqual(parse_release(text), ({"A": "080", "B": "yes", "C": "x y"}, {}))
        self.assertEqual(parse_release("---\n"), ({}, {}))
        for bad in ("config_vars: [a]", "config_vars: {A: [b]}", "config_vars: {A: {b: c}}"):
            with self.assertRaises(ValueError):
                parse_release(bad)

    def test_tail(self) -> None:
        """The last lines are kept, without colour, whatever the chunks, and never without bound."""
        tail = Tail(3)
        for chunk in (b"one\ntw", b"o\n\x1b[31mthree\x1b[0m\n\n", b"four\r\xff", b"x" * 100000):
            tail.feed(chunk)
        self.assertEqual(tail.lines()[:2], ("three", "four"))
        self.assertLessEqual(len(tail.lines()[2]), 400)


class Procfiles(SynchronousTestCase):
    def test_parsed(self) -> None:
        """Types and commands in order; comments, blank lines and CRLF do not matter."""
        text = "\ufeff# ours\r\nweb: bin/serve --port $PORT : x\r\n\nworker_2:run\n"
        expected = {"web": "bin/serve --port $PORT : x", "worker_2": "run"}
        self.assertEqual(parse_procfile(text), expected)

    def test_refused(self) -> None:
        """Each mistake is named with its line."""
        cases = {
            "web: a\nhello": "Procfile:2: 'hello' is not of the form 'web: COMMAND'",
            "web: a\n\nweb: b": "Procfile:3: 'web' stands twice",
            "web:  ": "Procfile:1: 'web' has no command",
            "we b: a": "Procfile:1: 'we b: a' is not of the form",
            "web: a\x1b[2J": "Procfile:1: 'web: a?[2J' is not of the form",
            "web: a\0b": "Procfile:1:",
        }
        for text, words in cases.items():
            error = self.assertRaises(BuildError, parse_procfile, text)
            self.assertIn(words, str(error))

    def test_web(self) -> None:
        """The Procfile's web goes before the pack's default; without both it says what to do."""
        built = Built("node", "Node.js", {}, {"web": "npm start"})
        self.assertEqual(web_command({"web": "mine"}, built), "mine")
        self.assertEqual(web_command({"worker": "x"}, built), "npm start")
        self.assertEqual(web_command(None, built), "npm start")
        error = self.assertRaises(BuildError, web_command, {"worker": "x"}, BUILT)
        self.assertIn("the Procfile has no 'web:' line", str(error))
        error = self.assertRaises(BuildError, web_command, None, BUILT)
        self.assertIn("'web: COMMAND' that listens on $PORT", str(error))


class Launch(Scene):
    async def launched(
        self, command: str, config_vars: Mapping[str, str], env: Mapping[str, str]
    ) -> str:
        place = Place.of(REACTOR, "", self.home / "it's here", self.home / "cache")
        (place.files / ".profile.d").mkdir()
        (place.files / ".profile.d/a.sh").write_text('export STRONG=profile.d LAST="$LAST a"\n')
        (place.files / ".profile").write_text('export LAST="$LAST profile"\n')
        script = self.home / "launch"
        script.write_text(launch_script(command, config_vars, app=place.app))
        log = Log()
        outcome = await place.run(launch_argv(str(script)), env, log.feed)
        self.assertTrue(outcome.ok, log.text)
        return log.data.decode()

    async def test_strength(self) -> None:
        """config_vars are the weakest, the environment stronger, .profile.d and .profile last."""
        config_vars = {"WEAK": "it's $HOME", "BOTH": "pack", "STRONG": "pack"}
        told = await self.launched(
            'echo "$WEAK|$BOTH|$STRONG|$LAST|$HOME|$PWD"',
            config_vars,
            {"BOTH": "env", "STRONG": "x"},
        )
        app = f"{self.home}/it's here/app"
        self.assertEqual(told, f"it's $HOME|env|profile.d| a profile|{app}|{app}\n")

    async def test_replaces_the_shell(self) -> None:
        """A simple command takes the place of its shells, so that TERM reaches it."""
        command = (
            """python3 -c 'import os; print(open("/proc/self/cmdline").read()[:7], os.getppid())'"""
        )
        self.assertEqual(await self.launched(command, {}, {}), f"python3 {os.getpid()}\n")

    async def test_compound(self) -> None:
        """Any shell is a command: lists, pipes, quotes, a leading dash."""
        self.assertEqual(await self.launched("cd / && echo 'a b' | tr a-z A-Z", {}, {}), "A B\n")


class EnvDir(SynchronousTestCase):
    def test_written(self) -> None:
        """One file per variable, for its owner only; a name that is none is refused."""
        home = Path(self.mktemp())
        write_env_dir(home, {"A": "x\ny", "B": ""})
        self.assertEqual({f.name: f.read_text() for f in home.iterdir()}, {"A": "x\ny", "B": ""})
        self.assertEqual({f.stat().st_mode & 0o777 for f in home.iterdir()}, {0o600})
        for name in ("../x", "", "A=B", "1A"):
            with self.assertRaises(ValueError):
                write_env_dir(Path(self.mktemp()), {name: "x"})
