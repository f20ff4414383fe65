"""What is logged, to the end of what people see of it: `starphleet logs`, over restarts, releases
and `kill -9`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from attrs import define, field

from tests.voyages.apps import web
from tests.voyages.harbour import ROOT, Harbour, until

COUNTING = """\
import http.server, os, threading, time

def count():
    number = 0
    while True:
        number += 1
        print(f"\\x1b[32mcount {number}\\x1b[0m", flush=True)
        time.sleep(0.02)

print("begun", os.getpid(), flush=True)
threading.Thread(target=count, daemon=True).start()
server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler
)
server.serve_forever()
"""


@define
class Receiver:
    """A receiver of syslog over TCP; `came` is what came, by connections."""

    came: list[bytearray] = field(factory=list)
    listening: socket.socket = field(factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.listening.getsockname()[1]}"

    def messages(self) -> Iterator[str]:
        """All that are whole."""
        for data in list(self.came):
            rest = bytes(data)
            while (end := rest.find(b" ")) > 0 and len(rest) > end + int(rest[:end]):
                yield rest[end + 1 : end + 1 + int(rest[:end])].decode()
                rest = rest[end + 1 + int(rest[:end]) :]

    def go(self) -> None:
        while True:
            connection, _ = self.listening.accept()
            self.came.append(data := bytearray())
            with connection, suppress(ConnectionResetError):  # a ship was killed
                while some := connection.recv(1 << 16):
                    data += some


@pytest.fixture(scope="module")
def receiver() -> Receiver:
    receiver = Receiver()
    threading.Thread(target=receiver.go, daemon=True).start()
    return receiver


@pytest.fixture(scope="module")
def port_of_call(
    runtime: str, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harbour]:
    """A ship that sends what is logged on."""
    home = tmp_path_factory.mktemp("harbour")
    with Harbour(home, {"STARPHLEET_SYSLOG": receiver.url}) as harbour:
        harbour.up()
        yield harbour


def counting() -> dict[str, str]:
    return {**web("counting"), "app.py": COUNTING, "Procfile": "web: python3 app.py\n"}


def events(harbour: Harbour, *words: str) -> list[dict[str, Any]]:
    text = harbour.starphleet("logs", "--json", *words).text
    return [json.loads(line) for line in text.splitlines()]


def counted(harbour: Harbour) -> list[int]:
    """The numbers of the newest run, in the order in which the journal has them."""
    numbers: list[int] = []
    for event in events(harbour, "counting", "-n", "90000"):
        if event["content"].startswith("begun"):
            numbers = []
        if event["content"].startswith("count "):
            numbers.append(int(event["content"].split()[1]))
    return numbers


def test_all_of_it_is_there(port_of_call: Harbour) -> None:
    """What a deploy said, what the service prints and what the ship logs, each with its service,
    release, process and time; no colour; also over SSH."""
    began = time.time()
    port_of_call.app(counting(), "counting").push("counting")
    until(lambda: len(counted(port_of_call)) > 20, "it counts")
    found = events(port_of_call, "counting", "-n", "90000")
    assert {(one["service"], one["process"]) for one in found} == {
        ("counting", "deploy"), ("counting", "web"),
    }  # fmt: skip
    assert all(re.fullmatch("counting-[0-9a-f]{12}-[0-9a-f]{12}", one["release"]) for one in found)
    assert all(began < one["time"] < time.time() for one in found)
    assert any("counting is live with" in one["content"] for one in found)
    assert "\x1b" not in json.dumps(found)
    assert [one["id"] for one in found] == sorted({one["id"] for one in found})
    own = events(port_of_call, "starphleet")
    assert any("the ship is up" in one["content"] for one in own)
    assert {(one["service"], one["process"]) for one in own} == {("", "ship")}
    everything = port_of_call.starphleet("logs", "-n", "5000").text
    assert re.search(r"^\S+ \S+ starphleet .*the ship is up", everything, re.MULTILINE)
    assert re.search(r"^\S+ \S+ counting \[deploy\] -----> ", everything, re.MULTILINE)
    assert re.search(r"^\S+ \S+ counting count 7$", everything, re.MULTILINE)
    argv = [*port_of_call.ssh, "git@localhost", "logs", "counting", "-n", "3", "--since", "1h"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert len(said.stdout.splitlines()) == 3
    argv[-5:] = ["starphleet"]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 1


def test_since_when(port_of_call: Harbour) -> None:
    """`--since` takes what is from then on; what is no time is refused in one line."""
    middle = events(port_of_call, "counting")[50]
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(middle["time"]))
    found = events(port_of_call, "counting", "--since", when)
    assert found[0]["time"] >= int(middle["time"])
    assert middle in found
    assert len(events(port_of_call, "counting", "--since", when, "-n", "2")) == 2
    assert events(port_of_call, "counting", "--since", "2199-01-01") == []
    said = port_of_call.starphleet("logs", "--since", "noon", check=False)
    assert (said.status, len(said.text.splitlines())) == (1, 1)


def test_nothing_twice_and_nothing_lost(port_of_call: Harbour) -> None:
    """`kill -9` of the ship: the service writes on, and the next ship has every line of it once."""
    for _ in range(3):
        port_of_call.kill()
        here = counted(port_of_call)
        time.sleep(0.3)
        port_of_call.up()
        until(lambda seen=here[-1]: counted(port_of_call)[-1] > seen + 40, "it comes in")  # type: ignore[misc]
    numbers = counted(port_of_call)
    assert numbers == [*range(1, numbers[-1] + 1)]


def test_following(port_of_call: Harbour) -> None:
    """`-f` goes on with what comes; Ctrl-C ends it, and so does whoever reads no more, quietly."""
    argv = [sys.executable, "-m", "receiver.cli", "logs", "-f", "-n", "0"]
    for words, ending in (([], signal.SIGINT), (["counting"], None)):
        client = subprocess.Popen(
            [*argv, *words], cwd=ROOT, env=port_of_call.env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert client.stdout is not None
        assert client.stderr is not None
        first, second = (int(client.stdout.readline().split()[-1]) for _ in range(2))
        assert second == first + 1
        if ending is not None:
            os.kill(client.pid, ending)
        client.stdout.close()
        assert client.wait(30) in (0, 130)
        assert client.stderr.read() == ""
        client.stderr.close()


def test_the_past_stays(port_of_call: Harbour) -> None:
    """What an older release logged is there when another serves, to its last line; and what a
    service did that is gone, also while no ship runs."""
    trap = 'web: trap "echo farewell; exit" TERM; python3 server.py & wait\n'
    app = port_of_call.app({**web("first"), "Procfile": trap}, "past")
    app.push("past")
    app.commit({**web("second"), "Procfile": trap})
    app.push("past")

    def contents() -> list[str]:
        return [one["content"] for one in events(port_of_call, "past", "-n", "9999")]

    assert sum("past is live with" in line for line in contents()) == 2
    releases = {one["release"] for one in events(port_of_call, "past", "-n", "9999")}
    assert len(releases) == 2
    port_of_call.down()
    assert len([line for line in contents() if line == "farewell"]) == 2
    assert any("the ship stops" in one["content"] for one in events(port_of_call, "starphleet"))
    port_of_call.up()


def test_it_is_sent_on(port_of_call: Harbour, receiver: Receiver) -> None:
    """A receiver of syslog has had every line of the service, while ships came and went."""
    found: list[list[int]] = []
    until(lambda: found.append(counted(port_of_call)) or found[-1], "it counts")  # type: ignore[func-returns-value]
    numbers = found[-1]

    def received() -> set[int]:
        told = (text for text in receiver.messages() if 'service="counting"' in text)
        return {int(text.split()[-1]) for text in told if "] count " in text}

    until(lambda: numbers[-1] in received(), "the receiver has the newest")
    assert sorted(set(numbers) - received()) == []
