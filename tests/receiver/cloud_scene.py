"""An AWS of the tests' own on the loopback, and `starphleet` that reaches nothing else."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest import mock

import boto3
from attrs import define, field
from botocore.config import Config

from receiver import cli
from tests.ports import free_port

BIN = Path(sys.executable).parent
HEADQUARTERS = "git@example.com:fleet/headquarters.git#main"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTINGTESTING00", "AWS_SECRET_ACCESS_KEY": "testing/secret"}
_DEBIAN = "136693071363"
_REFUSED = """<?xml version="1.0"?><Response><Errors><Error><Code>UnauthorizedOperation</Code>
<Message>You are not authorized\x9b31m here.\n So it is.</Message></Error></Errors></Response>"""


def elsewhere(event, args):  # type: ignore[no-untyped-def]
    """Who but the loopback would be spoken to, or looked for by name, at an event of Python's; else
    nothing."""
    if event not in ("socket.connect", "socket.getaddrinfo"):
        return ""
    where = args[1] if event == "socket.connect" else args[0]
    host = where[0] if isinstance(where, tuple) else where if event.endswith("info") else ""
    return "" if host in ("", None, "127.0.0.1") else host


# Ends a process that would.
_LOOPBACK_ALONE = f"""
import os, sys
{inspect.getsource(elsewhere)}
def refuse(event, args):
    if host := elsewhere(event, args):
        os.write(2, f"WENT TO {{host}}".encode())
        os._exit(99)
sys.addaudithook(refuse)
"""


def image(name: str, made: str, *, owner: str = _DEBIAN, arch: str = "x86_64") -> dict[str, Any]:
    """One, as moto wants to be told."""
    return {
        "ami_id": f"ami-{abs(hash(name)) % 16**8:08x}", "name": name, "owner_id": owner,
        "creation_date": made, "architecture": arch, "description": name, "image_type": "machine",
        "image_location": f"amazon/{name}", "public": True, "virtualization_type": "hvm",
        "hypervisor": "xen", "root_device_name": "/dev/xvda", "root_device_type": "ebs",
        "state": "available", "platform": None, "sriov": "simple",
    }  # fmt: skip


IMAGES = [
    image("debian-12-amd64-20261001-2000", "2026-10-01T00:00:00.000Z"),
    image("debian-12-amd64-20261101-2100", "2026-11-01T00:00:00.000Z"),
    image("debian-12-arm64-20261101-2100", "2026-11-01T00:00:00.000Z", arch="arm64"),
    image("debian-12-backports-amd64-20261110-2110", "2026-11-10T00:00:00.000Z"),
    image("debian-12-amd64-20261120-evil", "2026-11-20T00:00:00.000Z", owner="666666666666"),
]


@define
class Amazon:
    """moto behind a door that knows who asked for what, and can refuse or keep regions waiting."""

    port: int
    home: Path
    asked: list[tuple[str, str]] = field(factory=list)
    """Region and action of each request."""
    refused: set[str] = field(factory=set)
    silent: set[str] = field(factory=set)
    held: Event = field(factory=Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str, region: str) -> Any:
        """boto3's own, to look what is there."""
        return _looking(self.url, service, region)

    def env(self, **more: str) -> dict[str, str]:
        """Of a workstation whose AWS is this one, and nothing of the account that runs tests."""
        (self.home / "sitecustomize.py").write_text(_LOOPBACK_ALONE)
        none = str(self.home / "none")
        base = {
            "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.home),
            "PYTHONPATH": str(self.home), "STARPHLEET_ROOT": str(self.home / "ship"),
            "AWS_ENDPOINT_URL": self.url, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none,
        }  # fmt: skip
        return {**base, **KEYS, "STARPHLEET_HEADQUARTERS": HEADQUARTERS, **more}

    def alone(self, *words: str, env: Mapping[str, str]) -> tuple[int, str, str]:
        """A process of its own: its status, and what it printed on both. An empty variable is one
        that is not set."""
        done = subprocess.run(
            [BIN / "starphleet", *words],
            cwd=self.home, env=_set(env), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def starphleet(self, *words: str, env: Mapping[str, str]) -> tuple[int, str, str]:
        """The same, in this process, which has imported AWS's library already."""
        out, err = io.StringIO(), io.StringIO()
        with ExitStack() as around:
            around.enter_context(mock.patch.dict(os.environ, _set(env), clear=True))
            around.enter_context(chdir(self.home))
            around.enter_context(
                mock.patch("sys.stdin", around.enter_context(Path(os.devnull).open()))
            )
            around.enter_context(redirect_stdout(out))
            around.enter_context(redirect_stderr(err))
            around.enter_context(_loopback_alone())
            status = cli.main(words)
        return status, out.getvalue(), err.getvalue()


@cache
def _looking(url: str, service: str, region: str) -> Any:
    return boto3.client(
        service, region_name=region, endpoint_url=url, aws_access_key_id="look",
        aws_secret_access_key="look", config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


def _set(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if value}


_guarded = False


@contextmanager
def _loopback_alone() -> Iterator[None]:
    """Nothing of this process speaks to somebody else than the loopback meanwhile."""
    global _guarded
    _guard()
    _guarded = True
    try:
        yield
    finally:
        _guarded = False


@cache
def _guard() -> None:
    """There is no way to take it away again, so it looks whether it is wanted."""
    sys.addaudithook(lambda event, args: _refuse(event, args) if _guarded else None)


def _refuse(event: str, args: Any) -> None:
    host = elsewhere(event, args)
    if host:
        raise AssertionError(f"WENT TO {host}")


@contextmanager
def amazon(home: Path) -> Iterator[Amazon]:
    """One that is reached, with nothing in it but what every account has."""
    (home / "images.json").write_text(json.dumps(IMAGES))
    behind, log = free_port(), home / "moto.log"
    env = {
        "PATH": os.environ["PATH"], "MOTO_AMIS_PATH": str(home / "images.json"),
        "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true", "MOTO_ENABLE_AMI_VALIDATION": "true",
        "MOTO_ENABLE_KEYPAIR_VALIDATION": "true", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with log.open("wb") as out:
        moto = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(behind)],
            cwd=home, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        _until_it_answers(moto, behind, log)
        there = Amazon(free_port(), home)
        door = ThreadingHTTPServer(("127.0.0.1", there.port), _door(there, behind))
        door.daemon_threads = True
        Thread(target=door.serve_forever, daemon=True).start()
        try:
            yield there
        finally:
            there.held.set()
            door.shutdown()
            door.server_close()
    finally:
        moto.kill()
        moto.wait()


def _until_it_answers(moto: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            HTTPConnection("127.0.0.1", port, timeout=5).request("GET", "/moto-api/")
        except OSError:
            assert moto.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        else:
            return


def _door(there: Amazon, behind: int) -> type[BaseHTTPRequestHandler]:
    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            scope = re.search(r"/([a-z0-9-]+)/[a-z0-9]+/aws4", self.headers["Authorization"] or "")
            region = scope[1] if scope else ""
            action = re.search(rb"(?:^|&)Action=([A-Za-z]+)", body)
            there.asked.append((region, action[1].decode() if action else self.path))
            if region in there.silent:
                there.held.wait()
            elif region in there.refused:
                self._answer(403, {"Content-Type": "text/xml"}, _REFUSED.encode())
            else:
                self._pass(body)

        do_GET = do_POST

        def _pass(self, body: bytes) -> None:
            back = HTTPConnection("127.0.0.1", behind, timeout=60)
            back.request(self.command, self.path, body, dict(self.headers))
            answer = back.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name == "Content-Type"}
            self._answer(answer.status, kept, answer.read())

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nowhere."""

    return Door
