"""What an installation decides, and its steps, on directories of the tests' own."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from containers.calling import Called, call
from hooks.errors import Refused, ShipError
from receiver.config import installer
from receiver.install import command, options
from receiver.install.doors import Listener, taken
from receiver.install.files import (
    Commands,
    Directory,
    File,
    Key,
    Link,
    Secret,
    SettingsFile,
    with_settings,
)
from receiver.install.host import Host, Step
from receiver.install.plan import LAYOUT, Wish, laid, notes, steps, unsupported
from receiver.install.record import read, to_undo
from receiver.install.sshd import DROP_IN, SSHD, Sshd, moved_to, ports_of
from receiver.install.system import Quiet, Unit
from receiver.install.version import VERSIONS, Version, of_clone

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC9RSNTAzkFkaxg80rkfc4jc+pmg7pQqzxKp1IjZzfPX ann"
CHECKOUT = Path(__file__).parents[2]
USUAL = {"STARPHLEET_HOST": "h", **command.USUAL}


def asked(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.of_install(parser)
    return parser.parse_args(words)


def wish(*words: str, there: dict[str, str] | None = None, sshd: int | None = None) -> Wish:
    return command.wish_of(asked(*words), there or {}, sshd, "box", "https://example.com/it")


class Scene(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="install-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.host = Host(root=self.root)

    def do(self, step: Step) -> str:
        """Do what is lacking, and see that nothing is lacking then."""
        lacking = step.lacking(self.host)
        if lacking:
            step.do(self.host)
        self.assertEqual(step.lacking(self.host), "")
        return lacking


class DecidingTests(SynchronousTestCase):
    def test_hosts(self) -> None:
        """Debian 12 and Ubuntu 22.04 become ships, and what is newer; others are named."""
        for release in (
            {"ID": "debian", "VERSION_ID": "12"},
            {"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux forky/sid"},
            {"ID": "ubuntu", "VERSION_ID": "22.04"},
            {"ID": "ubuntu", "VERSION_ID": "24.10"},
        ):
            self.assertEqual(unsupported(release), "", release)
        for release in (
            {"ID": "debian", "VERSION_ID": "11", "PRETTY_NAME": "old"},
            {"ID": "ubuntu", "VERSION_ID": "20.04", "PRETTY_NAME": "old"},
            {"ID": "fedora", "VERSION_ID": "44", "PRETTY_NAME": "old"},
        ):
            self.assertIn("; this is old", unsupported(release))

    def test_settings(self) -> None:
        """Settings that are told replace their lines, and every other line stays."""
        text = "# a\nexport ONE=1\nTWO=2\n"
        self.assertEqual(with_settings(text, {"ONE": "1"}), text)
        changed = with_settings(text, {"ONE": "3", "NEW": "it's a \\ b"})
        self.assertEqual(changed, "# a\nTWO=2\nONE=3\nNEW='it\\'s a \\\\ b'\n")
        self.assertEqual(with_settings(changed, {"NEW": "it's a \\ b"}), changed)

    def test_ports(self) -> None:
        """sshd moves off the ship's port, stays where the port is shared, and where it was put."""
        self.assertEqual((wish().ssh_port, wish().sshd_port), (22, 2022))
        shared = wish("--ssh", "shared")
        self.assertEqual((shared.ssh_port, shared.sshd_port), (2222, None))
        self.assertEqual(shared.told["STARPHLEET_SSH_PORT"], "2222")
        later = wish(there={"STARPHLEET_SSH_PORT": "2222"})
        self.assertEqual((later.ssh_port, later.sshd_port), (2222, None))
        self.assertEqual(wish(sshd=2200).sshd_port, 2200)
        self.assertEqual(wish("--sshd-port", "2201", sshd=2200).sshd_port, 2201)

    def test_said_once(self) -> None:
        """What is not said again is left to what the settings say."""
        there = {"STARPHLEET_HOST": "ship.example.com", "STARPHLEET_HTTPS_PORT": "0"}
        again = wish(there=there)
        self.assertEqual(again.told, {})
        self.assertEqual(again.settled["STARPHLEET_HOST"], "ship.example.com")
        self.assertEqual(again.web_ports, [80])
        self.assertEqual(again.usual["STARPHLEET_REMOTE"], "https://example.com/it")

    def test_refused(self) -> None:
        """A setting that the ship would not start with is refused before anything is done."""
        for words in (["--ssh-port", "99999"], ["--host", "no host"], ["--set", "PORT"]):
            self.assertRaises(Refused, wish, *words)
        self.assertRaises(Refused, wish, "--key", "/nowhere/ann.pub")
        with self.assertRaisesRegex(Refused, "sshd was moved to port 2022"):
            wish("--ssh", "shared", sshd=2022)
        self.assertRaises(Refused, wish, "--set", 'A="x\ny"')

    def test_registry(self) -> None:
        """uv goes by the registry that pip is told, unless it has its own; neither is shown."""
        given = {"PIP_INDEX_URL": "https://u:secret@example.com/simple"}
        who = installer(given)
        self.assertEqual(who.environ["UV_DEFAULT_INDEX"], given["PIP_INDEX_URL"])
        self.assertEqual(
            installer({**given, "UV_DEFAULT_INDEX": "x"}).environ["UV_DEFAULT_INDEX"], "x"
        )
        version = Version(CHECKOUT, "c" * 40, "", "python3", who.environ)
        self.assertNotIn("secret", f"{who} {version}")

    def test_taken_ports(self) -> None:
        """Another's ports are named; not the ship's own, nor sshd's that is to be moved."""
        there = [
            Listener(22, "sshd", "sshd: /usr/sbin/sshd -D"),
            Listener(80, "nginx", "nginx: worker\nnginx: master -p /var/starphleet/nginx"),
            Listener(443, "caddy", "/usr/bin/caddy run"),
        ]
        self.assertEqual(taken([22, 80, 443], there, movable=22), ["port 443 is taken by caddy"])
        self.assertEqual(taken([22, 8080], there, movable=None), ["port 22 is taken by sshd"])

    def test_ways_in(self) -> None:
        """What is said in the end names the new port of sshd, and how to let somebody in."""
        wanted = Wish({}, USUAL, USUAL, 22, 2022)
        said = "\n".join(notes(wanted, booted=False, user="bob", sshd=2022, offered="/home/bob/k"))
        self.assertIn("ssh -p 2022 bob@h", said)
        self.assertIn("sudo starphleet key add bob /home/bob/k", said)
        self.assertIn("let ports 22, 80, 443 through", said)
        self.assertIn("when this system is booted", said)
        shared = notes(
            Wish({}, USUAL, USUAL, 2222, None), booted=True, user="bob", sshd=None, offered=""
        )
        self.assertIn("ssh://git@h:2222/NAME", "\n".join(shared))
        self.assertNotIn("sshd", "\n".join(shared))

    def test_taken_back(self) -> None:
        """What an installation made is taken back, the last first; data when it is told to."""
        data, plain = Directory("/data", 0o700, data=True), Directory("/plain", 0o700)
        other = File("/other", b"")
        made = {data.name: ["make"], plain.name: ["make"]}
        self.assertEqual(to_undo([data, plain, other], made, purge=False), [plain])
        self.assertEqual(to_undo([data, plain, other], made, purge=True), [plain, data])


class OverlayTests(SynchronousTestCase):
    def test_files(self) -> None:
        """What is laid belongs to root, sudo's file is closed, and programs can be run."""
        modes = {file.path: file.mode for file in laid(CHECKOUT / "overlay")}
        self.assertEqual(
            modes,
            {
                "/etc/logrotate.d/starphleet": 0o644,
                "/etc/sudoers.d/starphleet": 0o440,
                "/etc/systemd/system/starphleet.service": 0o644,
                "/usr/local/bin/starphleet": 0o755,
            },
        )

    def test_sudo(self) -> None:
        """Only admirals may be root."""
        text = (CHECKOUT / "overlay/etc/sudoers.d/starphleet").read_text()
        granted = [line for line in text.splitlines() if not line.startswith(("#", "Defaults:"))]
        self.assertEqual(granted, ["admiral ALL=(ALL:ALL) NOPASSWD: ALL"])

    def test_order(self) -> None:
        """sshd is moved before the ship starts, and is put back after that was stopped."""
        version = Version(CHECKOUT, "c" * 40, "", "python3")
        made = steps(
            Wish({}, USUAL, USUAL, 22, 2022), version, [], answers=lambda: True, down=lambda: None
        )
        names = [step.name for step in made]
        self.assertEqual(names[0], "directory /var/starphleet")
        self.assertEqual(names[-2:], ["sshd", "unit starphleet.service"])
        self.assertLess(names.index("version"), names.index("link /opt/starphleet/current"))
        self.assertEqual(
            [one.keeps for one in made if isinstance(one, Directory) and one.data], ["dev"]
        )


class FileTests(Scene):
    def test_files(self) -> None:
        """Each kind of file is made as it should be, left when it is so, and taken back."""
        every: list[tuple[Step, str]] = [
            (Directory("/a/b", 0o711), "make /a/b"),
            (File("/a/b/c", b"text", 0o640), "write /a/b/c"),
            (Link("/a/l", "b/c"), "let /a/l lead to b/c"),
            (Commands("/a/b/c", ("x", "y")), "give /a/b/c 2 of its names"),
            (Secret("/a/key", b"secret"), "write /a/key"),
        ]
        for step, what in every:
            self.assertEqual(self.do(step), what)
        self.assertEqual((self.root / "a/l").read_text(), "text")
        self.assertEqual((self.root / "a/b/y").read_text(), "text")
        self.assertEqual((self.root / "a/key").stat().st_mode & 0o7777, 0o600)
        (self.root / "a/b/c").chmod(0o666)
        self.assertEqual(self.do(every[1][0]), "give /a/b/c the mode 640")
        for step, _ in reversed(every):
            step.undo(self.host)
            step.undo(self.host)
        self.assertEqual(list((self.root / "a").iterdir()), [])

    def test_somebodys_work_stays(self) -> None:
        """Working directories are the developer's: they stay when the ship's data goes."""
        place = Directory("/data", 0o711, data=True, keeps="dev")
        for kept in (("dev/app", "dev/app/file"), ()):
            for name in ("logs", *kept):
                (self.root / "data" / name).mkdir(parents=True)
            place.undo(self.host)
            found = {str(one.relative_to(self.root)) for one in self.root.rglob("*")}
            wanted = {"data", "data/dev", "data/dev/app", "data/dev/app/file"} if kept else set()
            self.assertEqual(found, wanted)
            shutil.rmtree(self.root / "data", ignore_errors=True)

    def test_a_link_in_the_way(self) -> None:
        """A link where a file should be is replaced, and what it led to stays."""
        (self.root / "elsewhere").write_text("mine")
        (self.root / "file").symlink_to("elsewhere")
        self.do(File("/file", b"new"))
        self.assertEqual((self.root / "elsewhere").read_text(), "mine")
        self.assertFalse((self.root / "file").is_symlink())

    def test_checked_first(self) -> None:
        """What its program does not like is not laid, and the file that was there stays."""
        self.do(File("/file", b"good"))
        bad = File("/file", b"bad", check=("/bin/sh", "-c", "echo no good; exit 1"))
        with self.assertRaisesRegex(ShipError, "no good"):
            bad.do(self.host)
        self.assertEqual([one.name for one in self.root.iterdir()], ["file"])
        self.assertEqual((self.root / "file").read_text(), "good")

    @pytest.mark.skipif(shutil.which("visudo", path="/usr/sbin") is None, reason="without sudo")
    def test_visudo(self) -> None:
        """sudo's own program looks at sudo's file before it is in its place."""
        (good,) = [one for one in laid(CHECKOUT / "overlay") if "sudoers" in one.path]
        self.do(good)
        with self.assertRaises(ShipError):
            evolve(good, content=b"admiral ALL=(ALL NOPASSWD\n").do(self.host)
        self.assertEqual((self.root / good.path[1:]).read_bytes(), good.content)

    def test_settings_file(self) -> None:
        """The operator's own lines outlive another installation, the usual ones are theirs."""
        first = SettingsFile("/s", "# seed\n", {"A": "1"}, {"B": "2", "C": "3"})
        self.do(first)
        place = self.root / "s"
        self.assertEqual(place.read_text(), "# seed\nB=2\nC=3\nA=1\n")
        self.assertEqual(place.stat().st_mode & 0o7777, 0o640)
        place.write_text("# mine\nB=9\nA=1\nC=3\n")
        self.assertEqual(self.do(evolve(first, told={"C": "4"})), "change /s")
        self.assertEqual(place.read_text(), "# mine\nB=9\nA=1\nC=4\n")

    def test_key(self) -> None:
        """The first key is an admiral's, and another time nothing is to be done."""
        step = Key(LAYOUT, "ann", f"# hers\n{KEY}\n")
        self.assertEqual(self.do(step), "let ann in, as an admiral")
        place = self.root / "var/starphleet/authorized_keys/ann"
        self.assertEqual(place.read_text(), f"{KEY}\n")
        self.assertEqual(place.parent.stat().st_mode & 0o7777, 0o700)

    def test_going(self) -> None:
        """What was done before a step failed is on record, and the next time goes on from there."""
        bad = File("/bad", b"", check=("/bin/false",))
        todo = (Directory("/data", 0o711, data=True), File("/good", b""), bad)
        record = Path("/data/installed.json")
        said: list[str] = []
        with self.assertRaises(ShipError):
            command.go(self.host, todo, read(self.host, record), said.append, dry=False)
        self.assertEqual(list(read(self.host, record).made), ["directory /data", "file /good"])
        todo = (*todo[:2], evolve(bad, check=()))
        said.clear()
        done = command.go(self.host, todo, read(self.host, record), said.append, dry=False)
        self.assertEqual(done, 1)
        self.assertEqual(
            said,
            [
                "so already  directory /data",
                "so already  file /good",
                "doing       file /bad: write /bad",
            ],
        )
        self.assertEqual(command.go(self.host, todo, read(self.host, record), print, dry=True), 0)


class VersionTests(Scene):
    def test_as_it_was(self) -> None:
        """A version that cannot be made leaves nothing, for an uninstallation knows nothing of
        it."""
        clone, versions = self.root / "clone", self.host.at(VERSIONS)
        versions.mkdir(parents=True)
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "init", "--quiet", clone], check=True)
        git = ["git", "-C", str(clone), *who]
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "a"], check=True)
        version = of_clone(self.host, clone, "/nowhere/python3", {"PATH": "/usr/bin:/bin"})
        with self.assertRaisesRegex(ShipError, "python3"):
            version.do(self.host)
        self.assertEqual(list(versions.iterdir()), [])


class UnitTests(Scene):
    """Systemd is stood in for: voyages have a real one."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[list[str]] = []
        self.enabled, self.active, self.last = "enabled", 3, ""

        def systemctl(argv: Sequence[str], *, env: None = None) -> Called:
            self.asked.append(list(argv[1:]))
            if argv[0] == "journalctl":
                return Called(0, self.last)
            answers = {"is-enabled": (0, self.enabled), "is-active": (self.active, "")}
            return Called(*answers.get(argv[1], (0, "")))

        self.host = Host(root=self.root, booted=True, call=systemctl)

    def test_quiet(self) -> None:
        """What would start at boot beside the ship does not, unless it runs already."""
        step = Quiet("nginx.service", "nginx-light")
        self.assertEqual(step.lacking(self.host), "do not start nginx.service at boot")
        step.do(self.host)
        self.assertIn(["disable", "nginx.service"], self.asked)
        self.active = 0
        self.assertEqual(step.lacking(self.host), "")
        self.enabled = "disabled"
        self.assertEqual(step.lacking(self.host), "")

    def test_as_it_was(self) -> None:
        """What was there before starts at boot again; what came with the ship does not."""
        self.enabled = "disabled"
        step = Quiet("nginx.service", "nginx-light")
        evolve(step, brought=frozenset(["nginx-light"])).undo(self.host)
        self.assertNotIn(["enable", "nginx.service"], self.asked)
        step.undo(self.host)
        self.assertIn(["enable", "nginx.service"], self.asked)

    def test_started_anew(self) -> None:
        """The ship is started anew for what it reads when it starts, and for nothing else."""
        self.active = 0
        unit = Unit(answers=lambda: True, down=lambda: None)
        self.host.changed += ["key of ann", "file /etc/logrotate.d/starphleet"]
        self.assertEqual(unit.lacking(self.host), "")
        self.host.changed += ["version", "settings /etc/starphleet"]
        wanted = "start it anew, for: version, settings /etc/starphleet"
        self.assertEqual(unit.lacking(self.host), wanted)
        unit.do(self.host)
        self.assertEqual(self.asked[-1], ["restart", "starphleet.service"])

    def test_no_answer(self) -> None:
        """A ship that does not come up is said so, by its own last words and where to look."""
        self.last = "starphleet: the network: nft: no\n"
        with self.assertRaisesRegex(
            ShipError, "answer: the network: nft: no; journalctl -u starphleet"
        ):
            Unit(answers=lambda: False, down=lambda: None).do(self.host)
        self.assertNotIn(["disable", "--now", "starphleet.service"], self.asked)

    def test_never_answered(self) -> None:
        """One that did not come up when it was new is not tried for ever, and left nothing."""
        self.enabled = "disabled"
        with self.assertRaises(ShipError):
            Unit(answers=lambda: False, down=lambda: None).do(self.host)
        self.assertEqual(
            [words[0] for words in self.asked[-3:]], ["disable", "kill", "reset-failed"]
        )


@pytest.mark.skipif(not Path(SSHD).exists(), reason="without sshd")
class SshdTests(Scene):
    """OpenSSH's sshd reads the configuration; systemd is stood in for."""

    def setUp(self) -> None:
        super().setUp()
        (self.root / "usr/sbin").mkdir(parents=True)
        (self.root / SSHD[1:]).symlink_to(SSHD)
        key = self.root / "host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        if os.geteuid() == 0:  # where sshd separates its privileges, and does not know of our root
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.config = self.root / "etc/ssh/sshd_config"
        self.config.parent.mkdir(parents=True)
        self.config.write_text(f"HostKey {key}\nInclude {self.root}/etc/ssh/sshd_config.d/*.conf\n")
        self.asked: list[Sequence[str]] = []
        self.sshd = Sshd(22, 2022, answers=lambda port: True)

    def booted(self) -> Host:
        def systemctl(argv: Sequence[str], *, env: None = None) -> Called:
            if argv[0] != "systemctl":
                return call(argv)
            self.asked.append(argv[1:])
            return Called(3 if argv[1:] == ["is-active", "ssh.socket"] else 0, "")

        return Host(root=self.root, booted=True, call=systemctl)

    def test_moved(self) -> None:
        """A drop-in moves sshd, which then listens on that port alone."""
        self.assertIn("from port 22 to 2022", self.do(self.sshd))
        self.assertEqual(moved_to(self.host), 2022)
        told = subprocess.run([SSHD, "-T", "-f", self.config], capture_output=True, text=True)
        self.assertEqual(ports_of(told.stdout), {2022}, told)
        self.do(evolve(self.sshd, port=2023))
        self.assertEqual(moved_to(self.host), 2023)
        self.sshd.undo(self.host)
        self.assertIsNone(moved_to(self.host))

    def test_already_elsewhere(self) -> None:
        """Where sshd is not on the ship's port, it is left alone."""
        self.config.write_text(f"{self.config.read_text()}Port 2200\n")
        self.assertEqual(self.do(self.sshd), "")

    def test_no_way_round(self) -> None:
        """A configuration that says the port in another place is named, and nothing is written."""
        self.config.write_text(f"{self.config.read_text()}Port 22\n")
        with self.assertRaisesRegex(Refused, "would go on listening on port 22"):
            self.sshd.do(self.host)
        self.assertFalse(self.host.at(DROP_IN).exists())

    def test_a_configuration_that_is_broken(self) -> None:
        """What sshd itself does not like is not reloaded."""
        self.config.write_text(f"{self.config.read_text()}Nonsense yes\n")
        with self.assertRaisesRegex(ShipError, "Nonsense|terminating"):
            self.sshd.do(self.booted())
        self.assertEqual(self.asked, [])

    def test_reloaded(self) -> None:
        """sshd is reloaded, never stopped: sessions that are open go on."""
        self.sshd.do(self.booted())
        self.assertIn(["reload", "ssh.service"], self.asked)
        self.assertFalse([words for words in self.asked if "stop" in words or "restart" in words])

    def test_given_back(self) -> None:
        """sshd goes back to where its own configuration says, whatever port the ship has by now."""
        self.sshd.do(self.host)
        later = evolve(self.sshd, ship=2222, answers=lambda port: port == 22, seconds=0.0)
        later.undo(self.booted())
        self.assertIn(["reload", "ssh.service"], self.asked)
        self.assertFalse(self.host.at(DROP_IN).exists())

    def test_no_answer(self) -> None:
        """Where sshd does not answer on its new port, it is put back."""
        silent = evolve(self.sshd, answers=lambda port: False, seconds=0.0)
        with self.assertRaisesRegex(Refused, "does not answer on port 2022; it is left where"):
            silent.do(self.booted())
        self.assertFalse(self.host.at(DROP_IN).exists())
        self.assertEqual(self.asked.count(["reload", "ssh.service"]), 2)
