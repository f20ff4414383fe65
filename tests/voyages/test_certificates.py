"""Certificates of a ship: made here, of the headquarters, and by a real ACME server."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from attrs import frozen

from proxy.certificates import Certificate, self_made
from tests.ports import free_port
from tests.voyages.apps import web
from tests.voyages.base import Base, autodeploy, status, wait_for
from tests.voyages.harbour import Harbour, until

NAME = "shop.starphleet.org"
"""For the test's own DNS leads every name here."""


@frozen
class Quay:
    base: Base
    https: int

    def shown(self, host: str) -> Certificate:
        """The certificate that a client is shown who asks for `host`."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.https), 10) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            found = secure.getpeercert(binary_form=True)
        assert found is not None
        return Certificate(ssl.DER_cert_to_PEM_cert(found).encode(), b"")


@pytest.fixture(scope="module")
def quay(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quay]:
    """A ship with https that gets certificates from a real ACME server beside it."""
    https, http, home = free_port(), free_port(), tmp_path_factory.mktemp("harbour")
    with ExitStack() as stack:
        roots, directory = authority(stack, tmp_path_factory.mktemp("acme"), http)
        settings = {
            "STARPHLEET_PULSE": "1",
            "STARPHLEET_HTTPS_PORT": str(https),
            "STARPHLEET_ACME": "ann@starphleet.org",
            "STARPHLEET_ACME_SERVER": directory,
            "STARPHLEET_ACME_ROOTS": str(roots),
        }
        harbour = stack.enter_context(Harbour(home, settings, http_port=http))
        harbour.up()
        base = Base.new(harbour)
        base.service("shop", web("shop"))
        base.order({"shop/orders": autodeploy("shop", f"server_names default {NAME} b.localhost")})
        base.follow()
        wait_for(harbour, "shop/", "shop")
        yield Quay(base, https)


def authority(stack: ExitStack, home: Path, web: int) -> tuple[Path, str]:
    """pebble, and a DNS for which every name is this machine: its roots, and its URL."""
    port, dns, management = free_port(), free_port(), free_port()
    own = self_made(["127.0.0.1"], time.time())
    (home / "roots.pem").write_bytes(own.chain)
    (home / "key.pem").write_bytes(own.key)
    settings = {
        "listenAddress": f"127.0.0.1:{port}", "managementListenAddress": "",
        "certificate": str(home / "roots.pem"), "privateKey": str(home / "key.pem"),
        "httpPort": web, "tlsPort": 1,
    }  # fmt: skip
    (home / "pebble.json").write_text(json.dumps({"pebble": settings}))
    names = ["pebble-challtestsrv", "-defaultIPv6", "", "-dns01", f"127.0.0.1:{dns}"]
    names += ["-management", f"127.0.0.1:{management}", "-http01", "", "-https01", ""]
    server = ["pebble", "-config", str(home / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"]
    env = {"PATH": "/usr/bin:/bin", "PEBBLE_VA_NOSLEEP": "1"}
    for argv in ([*names, "-tlsalpn01", ""], server):
        log = stack.enter_context((home / "log").open("ab"))
        running = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
        stack.callback(running.wait)
        stack.callback(running.kill)

    def listens() -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    until(listens, "pebble listens")
    return home / "roots.pem", f"https://127.0.0.1:{port}/dir"


def test_one_of_the_ships_own_is_there_at_once(quay: Quay) -> None:
    """Whoever asks for the ship by its name is shown a certificate made here, for it."""
    assert quay.shown("localhost").covers("localhost")
    assert quay.shown("elsewhere.localhost").covers("elsewhere.localhost")


def test_a_host_of_orders_gets_one_from_the_authority(quay: Quay) -> None:
    """A name that orders give a service has a certificate of its own soon, which status counts
    down; one that no authority could know has not."""
    until(lambda: quay.shown(NAME).names == (NAME,), "the authority's certificate is shown")
    assert "b.localhost" not in quay.shown("b.localhost").names
    listed = {one["name"]: one["days"] for one in status(quay.base.harbour)["certificates"]}
    assert set(listed) == {"", NAME}
    assert min(listed.values()) > 30


def test_the_headquarters_pair_counts_and_is_replaced_without_a_restart(quay: Quay) -> None:
    """A pair in `ssl/` is shown instead, its successor after it by the same nginx, and a broken
    one not at all: it is named, and the last one stays."""
    pid = (quay.base.harbour.root / "nginx" / "nginx.pid").read_text()
    for days in (100, 200):
        own = self_made([NAME], time.time(), days)
        lay(quay, own.chain.decode(), own.key.decode())
        until(partial(shows, quay, own), f"one of {days} days is shown")
    lay(quay, "no certificate", own.key.decode())
    until(lambda: "ssl/" in str(status(quay.base.harbour)["headquarters"]["refused"]), "it is told")
    assert shows(quay, own)
    assert (quay.base.harbour.root / "nginx" / "nginx.pid").read_text() == pid


def shows(quay: Quay, own: Certificate) -> bool:
    return quay.shown(NAME).expires == own.expires


def lay(quay: Quay, chain: str, key: str) -> None:
    quay.base.order({f"ssl/{NAME}.crt": chain, f"ssl/{NAME}.key": key})
