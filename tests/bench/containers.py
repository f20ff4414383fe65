"""Services in LXC against the same as bare processes, and in the `process` runtime.

Needs a host where the LXC runtime works, and root.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.flask import APP, again
from tests.bench.lxc import MANY
from tests.bench.measure import Figure, Line, alternate, ratio, under
from tests.bench.neighbours import COMING, LOADS, ROUGH
from tests.bench.scene import Scene
from tests.bench.serving import Samples
from tests.containers.lxc import base, share_bases
from tests.voyages.harbour import Harbour

PUSHES = 9


def lxc(scene: Scene) -> Iterator[Line]:
    """From the start of a made container to its first answer, and what else a start takes."""
    found = _of(scene, "starts")
    ours, bare = _ms(found, "lxc answered"), _ms(found, "bare")
    yield Line("start to first answer, LXC : bare process", ours, bare, ratio(1.5))
    for what, name in [
        ("start to first answer", "answered"),
        ("container made", "made"),
        ("start returns", "begun"),
        ("stop", "stopped"),
    ]:
        ours, theirs = (_ms(found, f"{kind} {name}") for kind in ("lxc", "process"))
        yield Line(f"{what}, LXC : process", ours, theirs)


def repush(scene: Scene) -> Iterator[Line]:
    """A Flask app, requirements unchanged, pushed to two ships in turn."""
    home = scene.harbour.home
    with (
        _ship(home / "in-lxc", "lxc") as ours,
        _ship(home / "in-process", "process") as theirs,
    ):
        sides = (_pushing(ours), _pushing(theirs))
        push, against = alternate(PUSHES, *sides)
        yield Line("re-push of a Flask app, LXC : process", push, against, ratio(1.3))


def hundred(scene: Scene) -> Iterator[Line]:
    """A hundred at once."""
    found = _of(scene, "many")
    answered, bare = _figure(found, "answered"), _figure(found, "bare")
    yield Line(f"{MANY} containers until all answer : bare processes", answered, bare)
    inside = Figure(tuple(map(sum, zip(found["inside"], found["monitors"], strict=True))), "MB")
    yield Line("memory of each, with its monitor : bare", inside, _mean(found, "bare each"))
    yield Line("memory of each monitor", _mean(found, "monitors"))
    yield Line("what the host has less, for each", _mean(found, "host"))
    yield Line(f"{MANY} containers until all are gone", _figure(found, "ended"))


def bases(scene: Scene) -> Iterator[Line]:
    """The provided base, made from the distribution's packages."""
    found = _of(scene, "bases")
    for variant in ("slim", "full"):
        yield Line(f"starphleet-base ({variant}) made", _figure(found, variant))
        yield Line(f"starphleet-base ({variant})", Figure(tuple(found[f"{variant} MB"]), "MB"))


def beside(scene: Scene) -> Iterator[Line]:
    """What neighbours do to a service. Where an answer takes less than the scheduler's slice, it
    waits longer for that than for its own work: no bound."""
    found = _of(scene, "beside")
    for name, load in itertools.product(ROUGH, LOADS):
        ours, alone = (_ms(found, f"{key}, {load}") for key in (name, f"{name} alone"))
        bound = ratio(2) if LOADS[load].clients > 1 else None
        yield Line(f"p99 beside a {name} : alone, {load}", ours, alone, bound)
    what = f"slowest answer while {COMING} others come and go"
    yield Line(what, _ms(found, "slowest"), None, under(500, "ms"))


CONTAINERS: dict[str, Callable[[Scene], Iterator[Line]]] = {
    "lxc": lxc,
    "repush": repush,
    "hundred": hundred,
    "bases": bases,
    "beside": beside,
}


def _of(scene: Scene, part: str) -> Samples:
    """What the process says that starts containers."""
    home = scene.harbour.home / part
    home.mkdir(mode=0o711)
    argv = [sys.executable, "-m", "tests.bench.lxc", part, str(home)]
    # Not `run`, which would kill it on Ctrl-C before it has taken away what it set up.
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        said = process.communicate()[0]
    if process.returncode != 0:
        raise AssertionError(f"tests.bench.lxc {part} ended with {process.returncode}")
    found: Samples = json.loads(said)
    return found


def _figure(found: Samples, name: str) -> Figure:
    return Figure(tuple(found[name]))


def _ms(found: Samples, name: str) -> Figure:
    return Figure(tuple(seconds * 1000 for seconds in found[name]), "ms")


def _mean(found: Samples, name: str) -> Figure:
    """What the first of them has for all is shared out."""
    return Figure((statistics.fmean(found[name]),), "MB")


def _ship(home: Path, runtime: str) -> Harbour:
    """A ship of its own, not up, with the base that services stand on if it has bases."""
    harbour = Harbour(home, {"STARPHLEET_RUNTIME": runtime})
    if runtime == "lxc":
        base("full")
        (harbour.root / "lxc").mkdir(parents=True)
        share_bases(harbour.root / "lxc")
    return harbour


def _pushing(harbour: Harbour) -> Callable[[], float]:
    """Seconds of one more push of the app, which is live when it returns."""
    harbour.up()
    app = harbour.app(APP, "flask")
    url = app.push("flask").url
    return again(harbour, app, url)
