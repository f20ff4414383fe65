"""Who has a key now, as the front door is told."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from proxy.protection import OWN, Crew, Member
from proxy.ranks import Rank
from receiver.crew import crew_of
from receiver.ssh.keys import KeyDirectory
from tests.hooks.scene import scratch
from tests.receiver.ssh_ship import make_key


class Crews(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = scratch(self)
        self.keys = [
            make_key(self.root / str(number)).with_suffix(".pub").read_text() for number in range(3)
        ]
        self.directory = KeyDirectory(self.root / "own", self.root / "standing")

    def lay(self, files: dict[str, int]) -> list[tuple[str, Rank]]:
        """Who there is with these files of keys, by their numbers."""
        for path, number in files.items():
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.keys[number])
        found = crew_of(self.directory)
        for fingerprint, member in found.items():
            own = [key for key in self.directory.all() if key.fingerprint == fingerprint]
            self.assertEqual({key.owner for key in own}, {member.owner})
        return sorted((member.owner, member.rank) for member in found.values())

    def test_ranks(self) -> None:
        """Keys of the ship and of the headquarters, of every rank; one of two has the higher."""
        files = {"own/ann": 0, "own/pushers/pia": 1, "standing/captains/cat": 2}
        everybody = [("ann", Rank.ADMIRAL), ("cat", Rank.CAPTAIN), ("pia", Rank.PUSHER)]
        self.assertEqual(self.lay(files), everybody)
        raised = self.lay({"standing/captains/pia": 1})
        self.assertEqual(raised[2], ("pia", Rank.CAPTAIN))
        (self.root / "own" / "ann").unlink()
        self.assertEqual([name for name, _ in self.lay({})], ["cat", "pia"])

    def test_of_two_names(self) -> None:
        """A key under two names identifies nobody, as in the SSH server."""
        self.assertEqual(
            self.lay({"own/ann": 0, "standing/bob": 0, "own/cat": 1}), [("cat", Rank.ADMIRAL)]
        )

    def test_who_is_missed(self) -> None:
        """Somebody who went, may do less or is called otherwise; nobody who came or rose."""
        ann, pia = Member("ann", Rank.ADMIRAL), Member("pia", Rank.PUSHER)
        before = Crew({"a": ann, "p": pia})
        for members, missed in (
            ({"a": ann, "p": pia}, False),
            ({"a": ann, "p": pia, "b": ann}, False),
            ({"a": ann, "p": Member("pia", Rank.ADMIRAL)}, False),
            ({"a": ann}, True),
            ({"a": Member("ann", Rank.CAPTAIN), "p": pia}, True),
            ({"a": Member("eva", Rank.ADMIRAL), "p": pia}, True),
        ):
            self.assertEqual(Crew(members).misses(before), missed)

    def test_who_is_admitted(self) -> None:
        """By name and key both; on the host without one."""
        crew = Crew({"a": Member("ann", Rank.ADMIRAL), "p": Member("pia", Rank.PUSHER)})
        for owner, key, service, admitted in (
            ("ann", "a", OWN, True),
            ("pia", "p", OWN, False),
            ("pia", "p", "hello", True),
            ("ann", "p", "hello", False),
            ("pia", "a", "hello", False),
            ("eva", "e", "hello", False),
            ("root", "", OWN, True),
        ):
            self.assertEqual(crew.admits(owner, key, service), admitted)
