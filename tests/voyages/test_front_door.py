"""Who may use a service: every mode, on every way, for everybody."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from shlex import quote

import jwt
import pytest
from attrs import frozen

from tests.ports import free_port
from tests.proxy.directory import Directory
from tests.voyages.base import Base, autodeploy, live
from tests.voyages.harbour import Harbour, until

SECRET = "a secret of the login service, long enough"
FORGED = "another secret of the same kind and length"
ANN = "$2b$04$TvJodhOctFq8BcW5kMReeuNactYarhl3cNjt5pk0/C5XIFNWqqiIe"
BOB = "$2b$04$fGr/DERGMxhqhqX0Gkwtfu8P/ck0/QZvz8Aa5w0PW7NCUduODGrFi"

BALANCER = "127.2.0.1"

_counted = itertools.count()

ECHO = """\
import http.server, json, os

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"by": os.environ["SAYS"], "path": self.path,
                           "headers": [[k.lower(), v] for k, v in self.headers.items()]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
APP = {"Procfile": "web: python3 server.py\n", "server.py": ECHO}


@frozen
class Answered:
    status: int
    text: str
    headers: list[tuple[str, str]]

    @property
    def seen(self) -> dict[str, list[str]]:
        """The headers that reached the service, by name."""
        found: dict[str, list[str]] = {}
        for name, value in json.loads(self.text)["headers"]:
            found.setdefault(name, []).append(value)
        return found

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@frozen
class Way:
    """How a request comes to a service: host, port and what stands before its path."""

    host: str
    port: int
    prefix: str
    tls: bool = False
    upgrade: bool = False

    def ask(self, headers: dict[str, str], path: str = "x", by: str = "") -> Answered:
        """From an address of the loopback of its own: who fails often has to wait."""
        source = (by or f"127.1.{next(_counted) // 250}.{next(_counted) % 250 + 1}", 0)
        if self.tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            to: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=30, context=context, source_address=source
            )
        else:
            to = http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=30, source_address=source
            )
        sent = {"Host": self.host, **headers}
        if self.upgrade:
            sent |= {"Upgrade": "websocket", "Connection": "Upgrade"}
        try:
            to.request("GET", f"{self.prefix}{path}", headers=sent)
            answer = to.getresponse()
            text = answer.read().decode("utf-8", "replace")
            return Answered(answer.status, text, answer.getheaders())
        finally:
            to.close()


@frozen
class Door:
    harbour: Harbour
    https: int
    ports: dict[str, int]

    def ways(self, mode: str) -> dict[str, Way]:
        """All ways to the service of a mode."""
        plain, tls, host = self.harbour.http_port, self.https, f"{mode}.example.com"
        return {
            "path": Way("localhost", plain, f"/{mode}/"),
            "path by TLS": Way("localhost", tls, f"/{mode}/", tls=True),
            "written otherwise": Way("localhost", plain, f"/%{ord(mode[0]):02x}{mode[1:]}/"),
            "host": Way(host, plain, "/"),
            "host by TLS": Way(host, tls, "/", tls=True),
            "port": Way("localhost", self.ports[mode], "/"),
            "alias": Way("localhost", plain, f"/also-{mode}/"),
            "cached": Way("localhost", plain, f"/{mode}_cached/"),
            "websocket": Way("localhost", plain, f"/{mode}/", upgrade=True),
            "past the cache": Way("localhost", plain, f"/{mode}_cached/", upgrade=True),
        }


@pytest.fixture(scope="module")
def door(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A ship with a service of each mode; `ann` is listed, `bob` is not."""
    https, ports = free_port(), {mode: free_port() for mode in MODES}
    settings = {
        "STARPHLEET_PULSE": "1",
        "STARPHLEET_HTTPS_PORT": str(https),
        "STARPHLEET_PROXIES": f"{BALANCER}, 10.9.8.0/24",
    }
    with (
        ExitStack() as stack,
        Harbour(tmp_path_factory.mktemp("harbour"), settings) as harbour,
    ):
        directory = Directory(tls=False).start()
        stack.callback(directory.stop)
        harbour.up()
        base = Base.new(harbour)
        base.service("echo", APP)
        files = {f"{mode}/orders": orders(mode, ports[mode]) for mode in MODES}
        files |= {f"also-{mode}/orders": f"publish {mode}\n" for mode in MODES}
        files |= {f"{mode}/crew.acl": "Ann\n" for mode in MODES if mode != "public"}
        server = directory.server()
        files["ldap_servers/ours"] = (
            f"export LDAP_URL={quote(server.url)} LDAP_USER={quote(server.user)}\n"
            f"export LDAP_PASSWORD={quote(server.password)}\n"
        )
        base.order(files)
        base.follow()
        for mode in MODES:
            until(partial(live, harbour, f"{mode}/"), f"{mode} is live")
        yield Door(harbour, https, ports)


MODES = {
    "public": ["export SECURITY_MODE=public"],
    "htpasswd": [f"export HTPASSWD='ann:{ANN}\nbob:{BOB}'", "export SECURITY_MODE=htpasswd"],
    "ldap": ["export SECURITY_MODE=ldap", "export LDAP_SERVER=ours"],
    "jwt": [
        "export SECURITY_MODE=jwt",
        f"export JWT_SECRET='{SECRET}'",
        "export JWT_AUTH_SITE=https://login.example.com/in",
    ],
}


def orders(mode: str, port: int) -> str:
    lines = [*MODES[mode], f"export SAYS={mode}", f"export PUBLISH_PORT={port}"]
    lines += [f"server_names default {mode}.example.com", "enable_cache_endpoint"]
    return autodeploy("echo", *lines)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def token(user: str, secret: str = SECRET) -> str:
    now = int(time.time())
    return jwt.encode({"sub": user, "iat": now, "exp": now + 600}, secret, "HS256")


def credentials(mode: str) -> dict[str, dict[str, str]]:
    """What each kind of visitor sends."""
    forged = {"x-identity": "ann", "X-Identity": "ann", "jwt-sub": "ann", "JWT-Role": "admin"}
    cookies = f"starphleet_user={token('ann', FORGED)}; jwt={token('ann', FORGED)}"
    if mode == "jwt":
        who = {
            "wrong": {"Authorization": f"Bearer {token('ann', FORGED)}"},
            "right": {"Authorization": f"Bearer {token('ann')}"},
            "by cookie": {"Cookie": f"jwt={token('ann')}"},
            "not listed": {"Authorization": f"Bearer {token('bob')}"},
        }
    else:
        who = {
            "wrong": basic("ann", "wrong"),
            "right": basic("ann", "ann's"),
            "not listed": basic("bob", "bob's"),
        }
    return {**who, "nobody": {}, "forged header": forged, "forged cookie": {"Cookie": cookies}}


def test_the_same_check_on_every_way(door: Door) -> None:
    """Whoever is let in at one way to a service is at all others, whoever is not is nowhere; and
    the service sees the name that was checked and never the one that was sent."""
    seen = []
    for mode in MODES:
        for way, to in door.ways(mode).items():
            for who, sent in credentials(mode).items():
                if to.upgrade and who == "by cookie":
                    continue
                answer = to.ask(sent)
                case = f"{mode}, {way}, {who}: {answer.status} {answer.text[:200]}"
                welcome = mode == "public" or who in ("right", "by cookie")
                assert (answer.status == 200) == welcome, case
                if not welcome:
                    assert answer.status in (302, 401, 403, 429), case
                    assert '"by"' not in answer.text, case
                    continue
                named = answer.seen.get("x-identity", [])
                assert named == ([] if mode == "public" else ["ann"]), case
                assert "admin" not in str([v for k, v in answer.seen.items() if "jwt" in k]), case
                seen.append(case)
    assert len(seen) > len(MODES) * 9


def test_a_service_is_told_what_was_asked(door: Door) -> None:
    """The prefix is taken off byte for byte, on every way that has one."""
    for way, to in door.ways("public").items():
        if to.upgrade or way == "written otherwise":
            continue
        path = json.loads(to.ask({}, "a%2Fb/c+d//e?q=%20&r=/").text)["path"]
        assert path == "/a%2Fb/c+d//e?q=%20&r=/", way


def test_a_balancer_is_believed_and_nobody_else(door: Door) -> None:
    """Who asked, and how, is as the ship's balancers say; on every way, and by nobody else."""
    said = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7, 10.9.8.7", "X-Forwarded-Proto": "https"}
    for way, to in door.ways("public").items():
        seen = to.ask(said, by=BALANCER).seen
        assert (seen["x-real-ip"], seen["x-forwarded-proto"]) == (["203.0.113.7"], ["https"]), way
        seen = to.ask(said).seen
        assert seen["x-real-ip"][0].startswith("127.1."), way
        assert seen["x-forwarded-proto"] == ["https" if to.tls else "http"], way


def test_what_is_kept_is_kept_for_one_user(door: Door) -> None:
    """The cached way answers the same user again, and nobody else with what was his."""
    to = door.ways("htpasswd")["cached"]

    def kept() -> str | None:
        return to.ask(basic("ann", "ann's"), "mine").header("X-Cache-Status")

    assert kept() == "MISS"
    until(lambda: kept() == "HIT", "nginx keeps it a moment after the client has it")
    assert to.ask({}, "mine").status == 401
    assert to.ask(basic("ann", "wrong"), "mine").status in (401, 429)


def test_a_guarded_service_outlives_the_ship(door: Door) -> None:
    """After `kill -9` of the ship who may use a service is still looked at; the next ship goes on
    with it."""
    to = door.ways("htpasswd")["path"]
    door.harbour.kill()
    assert to.ask(basic("ann", "ann's"), "dead").status == 200
    assert to.ask({}).status == 401
    door.harbour.up()
    assert to.ask(basic("ann", "ann's"), "alive").status == 200
    assert to.ask({}).status == 401


def test_no_secret_is_told(door: Door) -> None:
    """Neither the logs of the ship, of nginx and of who looks at passwords, nor a list of
    processes have a password, a token or the secret of tokens in them."""
    told = door.harbour.starphleet("status", "--json").text
    for log in [door.harbour.home / "ship.log", *Path(door.harbour.root).rglob("*.log")]:
        told += log.read_text(errors="replace")
    for process in door.harbour.processes():
        told += " ".join(process)
    for secret in (SECRET, ANN, "ann's", "asker's 5ecret", base64.b64encode(b"ann:ann's").decode()):
        assert secret not in told, secret
