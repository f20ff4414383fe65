"""`/starphleet/metrics`: how the ship is, in the text that Prometheus reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from attrs import frozen
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from twisted.web.server import Request

from hooks.ledger import Tally
from receiver import answers
from receiver.headquarters import ordered as phases
from receiver.web.site import Answer
from receiver.web.sources import Sources

BOUNDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)  # seconds
STATES = ("live", "asleep", "restarting", "stopped", "orphaned")
PHASES = (phases.WAITING, phases.DEPLOYING, *sorted(phases.SETTLED))
OUTCOMES = ("live", "failed", "unreachable", "interrupted")


@frozen
class Facts:
    """What was asked of the ship for one answer. `status` is that of `starphleet status`."""

    status: Mapping[str, Any]
    tallies: Mapping[str, Tally]
    restarts: Mapping[str, int]
    ended: frozenset[str]
    asleep: frozenset[str]
    expires: Mapping[str, float]
    silence: float | None
    reloads: int
    connections: int
    events: int
    readers: int
    vitals: Any


async def gather(sources: Sources, readers: int) -> Facts:
    """Everything as it is now."""
    ship, loop = sources.ship, sources.loop
    followed = loop.location
    return Facts(
        status=await answers.status(ship, loop, sources.deploys),
        tallies=await ship.ledger.tallies(BOUNDS),
        restarts=ship.services.keeping.restarts,
        ended=frozenset(ship.services.keeping.ended),
        asleep=ship.proxy.traffic.asleep(),
        expires={name: each.expires for name, each in ship.door.certificates.items()},
        silence=loop.following.silence(followed.url) if followed else None,
        reloads=ship.proxy.reloads,
        connections=sources.ssh.connections,
        events=ship.journal.newest,
        readers=readers,
        vitals=ship.vitals.now(),
    )


def state(service: Mapping[str, Any], facts: Facts) -> str:
    """One of `STATES`."""
    for word in ("stopped", "orphaned"):
        if service[word]:
            return word
    if service["container"] in facts.ended:
        return "restarting"
    return "asleep" if service["service"] in facts.asleep else "live"


def families(facts: Facts) -> Iterator[Metric]:
    """Every metric of the ship."""
    ship = {"ship": facts.status["ship"], "version": version("starphleet")}
    yield InfoMetricFamily("starphleet_ship", "Which ship this is.", ship)
    yield from _services(facts)
    yield from _deploys(facts)
    yield from _headquarters(facts)
    yield from _front_door(facts)
    yield from _host(facts.vitals)
    yield _gauge("ssh_connections", "Open SSH connections.", facts.connections)
    yield _gauge("logstream_readers", "Who reads the log stream.", facts.readers)
    yield _counter("log_events", "Lines that the journal ever took.", facts.events)


def _services(facts: Facts) -> Iterator[Metric]:
    services = facts.status["services"]
    states = {one["service"]: state(one, facts) for one in services}
    yield _by("services", "Services by state.", "state", _counted(states.values(), STATES))
    phase = [one["phase"] for one in facts.status["ordered"]]
    yield _by("orders", "Ordered services by phase.", "phase", _counted(phase, PHASES))
    up = {name: float(word in ("live", "asleep")) for name, word in states.items()}
    yield _by("service_up", "Whether a service runs.", "service", up)
    since = {one["service"]: one["since"] for one in services}
    about = "When what serves went live."
    yield _by("service_live_timestamp_seconds", about, "service", since)
    ended = CounterMetricFamily(
        "starphleet_service_restarts",
        "How often a service ended by itself since the ship started.",
        labels=["service"],
    )
    for name in states:
        ended.add_metric([name], facts.restarts.get(name, 0))
    yield ended


def _deploys(facts: Facts) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "starphleet_deploys", "Deploys that ended, ever, by outcome.", labels=["outcome"]
    )
    took = HistogramMetricFamily(
        "starphleet_deploy_duration_seconds", "How long they took.", labels=["outcome"]
    )
    for outcome in dict.fromkeys((*OUTCOMES, *facts.tallies)):
        tally = facts.tallies.get(outcome, Tally(0, 0.0, (0,) * len(BOUNDS)))
        total.add_metric([outcome], tally.count)
        within = zip(map(str, BOUNDS), tally.within, strict=True)
        took.add_metric([outcome], [*within, ("+Inf", tally.count)], tally.seconds)
    yield total
    yield took
    yield _gauge("deploys_underway", "Deploys that run.", len(facts.status["running"]))
    yield _gauge("deploys_waiting", "Deploys in the queue.", len(facts.status["waiting"]))


def _headquarters(facts: Facts) -> Iterator[Metric]:
    followed = facts.status["headquarters"]
    if followed is None:
        return
    commit = {"commit": followed["commit"] or ""}
    yield InfoMetricFamily("starphleet_headquarters", "What counts of it.", commit)
    good = not followed["trouble"]
    yield _gauge("headquarters_up", "Whether the newest of it counts.", good)
    if facts.silence is not None:
        about = "Since it answered last."
        yield _gauge("headquarters_silence_seconds", about, facts.silence)
    refused = len(followed["refused"])
    yield _gauge("headquarters_refused_orders", "Orders in it that were refused.", refused)
    away = len(followed["out of reach"])
    yield _gauge("repositories_unreachable", "Repositories that cannot be read.", away)


def _front_door(facts: Facts) -> Iterator[Metric]:
    about = "Configurations that nginx was given since the ship started."
    yield _counter("nginx_reloads", about, facts.reloads)
    yield _gauge("online", "Whether the world is to be led here.", facts.status["online"])
    about = 'When a certificate ends; host="" is the default one.'
    yield _by("certificate_expiry_timestamp_seconds", about, "host", facts.expires)
    fine = {one["name"]: float(not one["trouble"]) for one in facts.status["certificates"]}
    yield _by("certificate_good", "Whether browsers will like it.", "host", fine)


def _host(vitals: Any) -> Iterator[Metric]:
    """Nothing before the first look at the host."""
    if vitals is None:
        return
    yield _gauge("host_cpu_ratio", "The share of all processors that is busy.", vitals.cpu)
    yield _gauge("host_load1", "The load average of a minute.", vitals.load)
    yield _gauge("host_memory_used_bytes", "Memory in use.", vitals.memory_used)
    yield _gauge("host_memory_size_bytes", "Memory there is.", vitals.memory_total)
    yield _gauge("host_disk_used_bytes", "Of the ship's disk.", vitals.disk_used)
    yield _gauge("host_disk_size_bytes", "The ship's disk.", vitals.disk_total)


def _counted(found: Iterable[str], words: Iterable[str]) -> dict[str, float]:
    """How many there are of each word, those that are none included."""
    return {**dict.fromkeys(words, 0), **Counter(found)}


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"starphleet_{name}", about, float(value))


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"starphleet_{name}", about, float(value))


def _by(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"starphleet_{name}", about, labels=[label])
    for value_of, value in values.items():
        family.add_metric([value_of], value)
    return family


@frozen(eq=False)
class _Given:
    """A collector of metrics that are there already."""

    metrics: list[Metric]

    def collect(self) -> list[Metric]:
        return self.metrics


def text(facts: Facts, accept: str) -> tuple[bytes, str]:
    """The page and its type, by what a client says that it takes."""
    registry = CollectorRegistry()
    registry.register(_Given(list(families(facts))))
    ProcessCollector(registry=registry)
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


def metrics(sources: Sources, readers: Any) -> Answer:
    """The page. `readers` tells how many read the log stream."""

    async def answer(request: Request) -> bytes:
        facts = await gather(sources, readers())
        body, kind = text(facts, (request.getHeader(b"accept") or b"").decode("latin-1"))
        request.setHeader("Content-Type", kind)
        return body

    return answer
