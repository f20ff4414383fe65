"""Names of services and releases."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Refused
from hooks.naming import (
    LABEL,
    branch_in,
    branch_of,
    configuration_id,
    repository_name,
    service_name,
    stem,
)
from proxy.routes import SERVICE

BAD_NAMES = [
    "", ".", "..", ".git", "-x", "--help", "a/../b", "a\nb", "a\0b", "a" * 4096, "hеllo", "a.",
    "a/", "A", "a--b", "a_b",
    "a b", "-", "a-", "headquarters", "$(id)", "a;b", "a'b", "１",
]  # fmt: skip

SEGMENT_OF_A_PATH = r"[A-Za-z0-9][A-Za-z0-9._~-]{0,6}"

branches = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12
)


class Names(SynchronousTestCase):
    def test_hostile_names_are_refused(self) -> None:
        """A repository's name is of the grammar as a whole, or nothing happens with it."""
        for name in BAD_NAMES:
            with self.subTest(name=name[:20]), self.assertRaises(Refused):
                repository_name(name)

    def test_good_names_stay_as_they_are(self) -> None:
        """A name that is accepted is used unchanged."""
        for name in ("a", "hello", "hello-2", "0x", "a" * LABEL):
            self.assertEqual(repository_name(name), name)

    def test_trunks_are_the_name_itself(self) -> None:
        """master and main are NAME, whichever a team uses."""
        self.assertEqual(
            [service_name("app", branch) for branch in ("master", "main", "feature/login")],
            ["app", "app", "app--feature--login"],
        )

    @given(branches)
    def test_branches_become_host_labels_and_come_back(self, branch: str) -> None:
        """Every branch has a service name of its own, from which the branch can be read again."""
        try:
            service = service_name("app", branch)
        except Refused:
            return
        assert SERVICE.fullmatch(service)
        assert branch_in(service) == (None if branch in ("master", "main") else branch)

    def test_a_branch_too_long_for_a_host_is_refused(self) -> None:
        """No name is cut, where two branches could become one."""
        with self.assertRaisesRegex(Refused, "SHORT"):
            service_name("app", "x" * 60)

    def test_only_branches_are_built(self) -> None:
        """Tags and odd refs are refused with what to push instead."""
        for ref in ("refs/tags/v1", "HEAD", "refs/heads/", "refs/notes/x", "refs/heads/-x"):
            with self.subTest(ref=ref), self.assertRaises(Refused):
                branch_of(ref)

    @given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
    def test_the_configuration_is_its_variables(self, environment: dict[str, str]) -> None:
        """The same variables in another order are the same release; another value is another."""
        reordered = dict(reversed(environment.items()))
        assert configuration_id(environment) == configuration_id(reordered)
        for name, value in environment.items():
            changed = {**environment, name: value + "x"}
            assert configuration_id(changed) != configuration_id(environment)


class Stems(SynchronousTestCase):
    def test_a_pushed_name_stays(self) -> None:
        """A name that needs nothing is used as it is."""
        self.assertEqual(stem("shop"), "shop")

    @given(st.lists(st.from_regex(SEGMENT_OF_A_PATH, fullmatch=True), min_size=1, max_size=3))
    def test_paths_stay_apart(self, segments: list[str]) -> None:
        """The stem of a path is a file name, and no other path of those that differ by a letter's
        case, a slash or a dash has it."""
        path = "/" + "/".join(segments)
        others = {path.swapcase(), path.replace("-", "/"), path.replace("/", "-"), f"{path}/x"}
        name = stem(path)
        self.assertRegex(name, r"\A(?![.-])[a-z0-9.-]+\Z")
        for other in others - {path}:
            if SERVICE.fullmatch(other):
                self.assertNotEqual(stem(other), name)
