"""What Prometheus reads of a ship."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from prometheus_client.openmetrics.parser import text_string_to_metric_families as of_open_metrics
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from hooks.ledger import Tally
from hooks.vitals import Sample
from receiver.web.metrics import BOUNDS, Facts, text


def service(name: str, **more: Any) -> dict[str, Any]:
    usual = {"container": f"{name}-0-1", "since": 1000.5, "stopped": False, "orphaned": False}
    return {"service": name, **usual, **more}


FACTS = Facts(
    status={
        "ship": "here",
        "headquarters": None,
        "services": [],
        "ordered": [],
        "certificates": [],
        "online": True,
        "running": [],
        "waiting": [],
    },
    tallies={},
    restarts={},
    ended=frozenset(),
    asleep=frozenset(),
    expires={},
    silence=None,
    reloads=3,
    connections=2,
    events=41,
    readers=1,
    vitals=None,
)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(facts: Facts) -> Samples:
    page, kind = text(facts, "")
    assert kind.startswith("text/plain"), kind
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(page.decode())
        for one in family.samples
    }


class Metrics(SynchronousTestCase):
    def value(self, found: Samples, name: str, **labels: str) -> float:
        return found[f"starphleet_{name}", frozenset(labels.items())]

    def saying(self, **more: Any) -> Facts:
        return evolve(FACTS, status={**FACTS.status, **more})

    def test_a_ship_with_nothing(self) -> None:
        """Every kind of state, phase and outcome is there, as 0; what is not known is not."""
        found = read(FACTS)
        for state in ("live", "asleep", "restarting", "stopped", "orphaned"):
            self.assertEqual(self.value(found, "services", state=state), 0)
        for outcome in ("live", "failed", "unreachable", "interrupted"):
            self.assertEqual(self.value(found, "deploys_total", outcome=outcome), 0)
        for phase in ("waiting", "deploying", "live", "failed", "unreachable", "stopped"):
            self.assertEqual(self.value(found, "orders", phase=phase), 0)
        self.assertEqual(self.value(found, "nginx_reloads_total"), 3)
        self.assertEqual(self.value(found, "log_events_total"), 41)
        self.assertEqual(self.value(found, "ssh_connections"), 2)
        self.assertIn("process_resident_memory_bytes", {name for name, _ in found})
        self.assertFalse([name for name, _ in found if "headquarters" in name or "host" in name])

    def test_services(self) -> None:
        """Each counts in one state; one that is asleep is up, one that ended is not."""
        services = [
            service("a"),
            service("b", stopped=True),
            service("c", orphaned=True),
            service("/d"),
            service("e"),
        ]
        facts = evolve(
            self.saying(services=services, ordered=[{"phase": "failed"}, {"phase": "live"}]),
            ended=frozenset({"e-0-1", "gone-0-1"}),
            asleep=frozenset({"/d"}),
            restarts={"e": 4, "gone": 9},
        )
        found = read(facts)
        for state in ("live", "asleep", "restarting", "stopped", "orphaned"):
            self.assertEqual(self.value(found, "services", state=state), 1, state)
        up = [self.value(found, "service_up", service=one["service"]) for one in services]
        self.assertEqual(up, [1, 0, 0, 1, 0])
        self.assertEqual(self.value(found, "service_restarts_total", service="e"), 4)
        self.assertEqual(self.value(found, "service_restarts_total", service="a"), 0)
        self.assertNotIn("gone", str(found))
        self.assertEqual(self.value(found, "service_live_timestamp_seconds", service="a"), 1000.5)
        self.assertEqual(self.value(found, "orders", phase="failed"), 1)

    def test_deploys(self) -> None:
        """Counts and a histogram that grows from bucket to bucket, by outcome."""
        within = tuple(min(7, number) for number in range(len(BOUNDS)))
        facts = evolve(
            self.saying(running=["a"], waiting=["b", "c"]), tallies={"live": Tally(9, 88.5, within)}
        )
        found = read(facts)
        self.assertEqual(self.value(found, "deploys_total", outcome="live"), 9)
        name = "deploy_duration_seconds"
        self.assertEqual(self.value(found, f"{name}_bucket", outcome="live", le="2.5"), 2)
        self.assertEqual(self.value(found, f"{name}_bucket", outcome="live", le="+Inf"), 9)
        self.assertEqual(self.value(found, f"{name}_sum", outcome="live"), 88.5)
        self.assertEqual(self.value(found, "deploys_underway"), 1)
        self.assertEqual(self.value(found, "deploys_waiting"), 2)

    def test_what_surrounds_a_ship(self) -> None:
        """Its headquarters, its certificates, and its host once it was looked at."""
        followed = {
            "url": "https://x.org/hq",
            "commit": "1" * 40,
            "trouble": "no",
            "refused": {"a": "why"},
            "out of reach": {},
        }
        certificates = [{"name": "", "days": 3, "trouble": "it is old"}]
        facts = evolve(
            self.saying(headquarters=followed, certificates=certificates),
            silence=4.5,
            expires={"": 2000.0},
            vitals=Sample(1.0, 0.25, 3, 4, 5, 6, 0.5),
        )
        found = read(facts)
        self.assertEqual(self.value(found, "headquarters_up"), 0)
        self.assertEqual(self.value(found, "headquarters_silence_seconds"), 4.5)
        self.assertEqual(self.value(found, "headquarters_refused_orders"), 1)
        self.assertEqual(self.value(found, "headquarters_info", commit="1" * 40), 1)
        self.assertEqual(self.value(found, "certificate_expiry_timestamp_seconds", host=""), 2000)
        self.assertEqual(self.value(found, "certificate_good", host=""), 0)
        self.assertEqual(self.value(found, "host_cpu_ratio"), 0.25)
        self.assertEqual(self.value(found, "host_disk_size_bytes"), 6)

    def test_names_from_outside_are_text(self) -> None:
        """What stands in a label ends neither it nor its line."""
        name = 'a"} 1\nevil{x="\\'
        found = read(self.saying(services=[service(name)]))
        self.assertEqual(self.value(found, "service_up", service=name), 1)
        self.assertFalse([found for found, _ in found if found.startswith("evil")])

    def test_open_metrics(self) -> None:
        """A client that prefers it gets it, of that type, and can read all of it."""
        accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        page, kind = text(self.saying(services=[service("a")]), accept)
        self.assertTrue(kind.startswith("application/openmetrics-text"))
        names = {family.name for family in of_open_metrics(page.decode())}
        self.assertLessEqual({"starphleet_deploys", "starphleet_ship"}, names)
