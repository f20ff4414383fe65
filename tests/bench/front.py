"""Services through the ship's nginx against a bare one of the distribution before the same app.

`python -m tests.bench.front HOME`: one JSON object of lists of samples.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import bcrypt
import jwt
import psutil
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from containers.interface import Address
from containers.watching import in_thread
from proxy.distribution import SYSTEM_PATHS
from proxy.instance import Instance
from proxy.nginx import Proxy
from proxy.protection import Commons, Jwt, Protection
from proxy.routes import Backend, Route
from tests.bench.measure import Bound, Figure, Line
from tests.bench.scene import Scene
from tests.bench.serving import Samples, first_answer
from tests.ports import free_port
from tests.proxy.directory import Directory
from tests.proxy.reactor import run

ROUNDS = 9
SECONDS, CLIENTS = 2, 32  # of one run of wrk
WORKERS = os.cpu_count() or 1  # of each nginx, and of the app
PEOPLE = ("ann", "bob")  # they take turns; the directory knows them, and their passwords
NOWHERE = "https://login.example/"
SECRET = "a secret that the login service knows too"

APP = """
import time
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
BODY = {"type": "http.response.body", "body": b"hello"}
async def app(scope, receive, send):
    if scope["path"] == "/work":
        end = time.thread_time() + 0.001
        while time.thread_time() < end: pass
    await send(START)
    await send(BODY)
"""
UVICORN = ("uvicorn[standard]>=0.30,<1",)
NGINX = """
daemon off; pid nginx.pid; error_log log; worker_processes {workers};
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 10000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    {within}
}}
"""
HELLO = 'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }}'
LEADING = """
    upstream by{port} {{
        server 127.0.0.1:{app}; keepalive 128; keepalive_requests 10000000;
    }}
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://by{port}; {more} }} }}
"""
# What a ship tells an app: reading it is a good part of what an empty one does, whoever says it.
TELLING = """
    proxy_set_header Connection ""; proxy_set_header Host $http_host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Port $server_port; proxy_set_header X-Forwarded-Prefix /open;
    proxy_set_header X-Forwarded-Server $host; proxy_set_header X-Starphleet-Service-Name open;
"""
# Each person's request is made once. What comes out is one JSON object.
WRK = """
local requests, number = {{}}, 0
function init(args)
    for _, headers in ipairs({{ {people} }}) do
        requests[#requests + 1] = wrk.format("GET", nil, headers)
    end
end
function request()
    number = number % #requests + 1
    return requests[number]
end
function done(summary, latency)
    local errors = 0
    for _, count in pairs(summary.errors) do errors = errors + count end
    io.write(string.format('\\n{{"requests": %d, "rate": %f, "p99": %f, "errors": %d}}\\n',
        summary.requests, summary.requests / summary.duration * 1e6,
        latency:percentile(99) / 1e6, errors))
end
"""


@frozen
class Mode:
    """How a service is protected, and a header that each of its people brings, if any."""

    protection: Protection
    headers: tuple[tuple[str, str], ...] = ()


def least(share: float) -> Bound:
    """At least this share of the other."""
    return Bound(f"ratio >= {share:g}", lambda ours, against: ours >= share * against)


TOLD = "{}, bare nginx sending the same headers"
QUICK = "open, an empty app on uvloop and httptools"
QUICK_GUARDED = "htpasswd, an empty app on uvloop and httptools"
STILL = "open, nginx as the app"
WORKING = "open, an app that works for 1 ms"
PLAIN = ("--http", "h11", "--loop", "asyncio")
"""uvicorn as it comes without its extras, in one process. In several it would wait 40 ms for each
answer, since it leaves out TCP_NODELAY there."""
BOUNDS: Mapping[str, Bound | None] = {
    "open": least(0.97),
    "jwt": least(0.9),
    "ldap": least(0.9),
    "htpasswd": least(0.9),
    TOLD.format("open"): least(0.97),
    TOLD.format("jwt"): least(0.9),
    TOLD.format("ldap"): least(0.9),
    TOLD.format("htpasswd"): least(0.9),
    QUICK: least(0.97),
    QUICK_GUARDED: least(0.9),
    TOLD.format(QUICK): least(0.97),
    TOLD.format(QUICK_GUARDED): least(0.9),
    STILL: least(0.75),
    WORKING: None,
}


def front(scene: Scene) -> Iterator[Line]:
    """Requests a second, the 99th percentile of their times, and what nginx computes for each."""
    if shutil.which("wrk", path=SYSTEM_PATHS) is None:
        print("front: skipped, there is no wrk: apt-get install wrk", flush=True)
        return
    found = apart(__name__, scene)
    for name, bound in BOUNDS.items():
        ours, bare = (Figure(tuple(found[f"{name}, {side}"]), "") for side in SIDES)
        yield Line(f"requests/s, {name} : bare nginx", ours, bare, bound)
        ours, bare = (ms(found[f"{name}, {side}, p99"]) for side in SIDES)
        yield Line("  p99", ours, bare)
        ours, bare = (Figure(tuple(found[f"{name}, {side}, cpu"]), "us") for side in SIDES)
        yield Line("  nginx's processor time of each", ours, bare)


SIDES = ("ours", "bare")


def ms(seconds: Sequence[float]) -> Figure:
    return Figure(tuple(each * 1000 for each in seconds), "ms")


def apart(module: str, scene: Scene) -> Samples:
    """What a process of `module` says, which has a reactor and a directory of its own."""
    home = scene.harbour.home / module.rpartition(".")[2]
    home.mkdir(mode=0o711)
    # Not `run`, which would kill it on Ctrl-C before it has ended what it started.
    argv = [sys.executable, "-m", module, str(home)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.read()
    if process.returncode != 0:
        raise AssertionError(f"{module} ended with {process.returncode}")
    samples: Samples = json.loads(said)
    return samples


def alone(measure: Callable[[Any, Path], Any], argv: Sequence[str]) -> None:
    """The process of `apart`: prints what `measure` found below its directory."""

    async def said(reactor: Any) -> None:
        print(json.dumps(await measure(reactor, Path(argv[0]))))

    react(lambda reactor: Deferred.fromCoroutine(said(reactor)), [])


def ship(reactor: Any, prefix: Path, port: int, **options: Any) -> Proxy:
    """A ship's nginx, which ends with the reactor."""
    proxy = Proxy(reactor, Instance(prefix, port, bind="127.0.0.1", workers=WORKERS), **options)

    def end() -> Deferred[None]:
        return Deferred.fromCoroutine(proxy.stop())

    reactor.addSystemEventTrigger("before", "shutdown", end)
    return proxy


@contextmanager
def process(argv: Sequence[str], port: int, home: Path) -> Iterator[None]:
    """A program that listens on `port` of the loopback, until the block or this process ends.

    It has a session of its own, as the ship's nginx has: Linux shares processors out by session.
    """
    ours = ["setpriv", "--pdeathsig", "TERM", *argv]
    with (home / "said").open("ab") as said:
        started = subprocess.Popen(ours, cwd=home, stdout=said, stderr=said, start_new_session=True)
    try:
        first_answer(Address("127.0.0.1", port))
        yield
    finally:
        started.terminate()
        started.wait()


@contextmanager
def nginx(home: Path, within: str, port: int) -> Iterator[None]:
    """The distribution's nginx with `within` in its http."""
    home.mkdir()
    (home / "conf").write_text(NGINX.format(workers=WORKERS, within=within))
    program = shutil.which("nginx", path=SYSTEM_PATHS)
    argv = [program or "nginx", "-p", str(home), "-e", "log", "-c", "conf"]
    with process(argv, port, home):
        yield


@contextmanager
def uvicorn(home: Path, port: int, quick: int) -> Iterator[None]:
    """Installed for this: the app plainly at `port`, and at `quick` with all that makes it so."""
    home.mkdir()
    (home / "app.py").write_text(APP)
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", home / "v"], check=True)
    subprocess.run(
        [*uv, "pip", "install", "-q", "--python", home / "v/bin/python", *UVICORN], check=True
    )
    argv = [str(home / "v/bin/uvicorn"), "app:app", "--no-access-log", "--log-level", "warning"]
    with (
        process([*argv, "--port", str(port), *PLAIN], port, home),
        process([*argv, "--port", str(quick), "--workers", str(WORKERS)], quick, home),
    ):
        yield


def modes() -> Mapping[str, Mode]:
    """Each with what its people have to say."""
    now = int(time.time())
    claims = {"iat": now, "exp": now + 3600}
    tokens = [jwt.encode({"sub": name, **claims}, SECRET) for name in PEOPLE]
    words = [f"{name}:{name}'s".encode() for name in PEOPLE]
    basic = tuple(("Authorization", "Basic " + b64encode(each).decode()) for each in words)
    salt = bcrypt.gensalt
    users = {name: bcrypt.hashpw(f"{name}'s".encode(), salt()).decode() for name in PEOPLE}
    return {
        "open": Mode(Protection()),
        "jwt": Mode(
            Protection("jwt", jwt=Jwt(NOWHERE, SECRET)),
            tuple(("Cookie", f"jwt={token}") for token in tokens),
        ),
        "ldap": Mode(Protection("ldap", ldap="ours"), basic),
        "htpasswd": Mode(Protection("htpasswd", users=users), basic),
    }


async def measure(reactor: Any, home: Path) -> Samples:
    """For each mode and both sides: requests a second, seconds at the 99th percentile, and
    microseconds that nginx's workers compute for a request."""
    app, quick, still, port, to_app, to_quick, to_still = (free_port() for _ in range(7))
    told, quick_told = free_port(), free_port()
    behind = [
        (to_app, app, ""), (to_quick, quick, ""), (to_still, still, ""),
        (told, app, TELLING), (quick_told, quick, TELLING),
    ]  # fmt: skip
    leading = "".join(LEADING.format(app=to, port=at, more=more) for at, to, more in behind)
    of = modes()
    with ExitStack() as stack:
        directory = Directory(tls=False).start()
        stack.callback(directory.stop)
        enter = stack.enter_context
        enter(uvicorn(home / "uvicorn", app, quick))
        enter(nginx(home / "still", HELLO.format(port=still), still))
        enter(nginx(home / "bare", leading, to_app))
        proxy = ship(reactor, home / "ship", port, run=run)
        table = {
            Route(name, (), f"/{name}/"): (Backend(name, "127.0.0.1", app), mode.protection)
            for name, mode in of.items()
        }
        for name, at, mode in (
            ("still", still, of["open"]),
            ("quick", quick, of["open"]),
            ("quick-htpasswd", quick, of["htpasswd"]),
        ):
            backend = Backend(name, "127.0.0.1", at)
            table[Route(name, (), f"/{name}/")] = (backend, mode.protection)
        servers = {"ours": directory.server()}
        refused = await proxy.start(table, Commons(ldap_servers=servers))
        if refused:
            raise AssertionError(refused)
        rows = [(name, mode, f"{name}/", to_app, "") for name, mode in of.items()]
        rows += [
            *((TOLD.format(name), mode, f"{name}/", told, "") for name, mode in of.items()),
            (QUICK, of["open"], "quick/", to_quick, ""),
            (QUICK_GUARDED, of["htpasswd"], "quick-htpasswd/", to_quick, ""),
            (TOLD.format(QUICK), of["open"], "quick/", quick_told, ""),
            (TOLD.format(QUICK_GUARDED), of["htpasswd"], "quick-htpasswd/", quick_told, ""),
            (STILL, of["open"], "still/", to_still, ""),
            (WORKING, of["open"], "open/work", to_app, "work"),
        ]
        found: Samples = {}
        masters = [master_of(home / one) for one in ("ship", "bare")]
        for name, mode, path, at, below in rows:
            urls = (f"http://127.0.0.1:{port}/{path}", f"http://127.0.0.1:{at}/{below}")
            await in_thread(reactor, met, urls[0], mode)
            script = written(home / "requests.lua", mode)
            sides = list(zip(SIDES, urls, masters, strict=True))
            await in_thread(reactor, pairs, found, name, script, sides)
    return found


def written(script: Path, mode: Mode) -> Path:
    """What wrk is to say for the people of `mode`."""
    headers = mode.headers or (("Accept", "*/*"),)
    people = ", ".join(f"{{ [{json.dumps(name)}] = {json.dumps(text)} }}" for name, text in headers)
    script.write_text(WRK.format(people=people))
    return script


def met(url: str, mode: Mode) -> None:
    """Each of its people is let in, once. Passwords are slow to compare the first time."""
    for header in mode.headers:
        with urlopen(Request(url, headers=dict([header])), timeout=20) as answer:
            answer.read()


def pairs(found: Samples, name: str, script: Path, sides: Sequence[tuple[str, str, int]]) -> None:
    """Both sides in turn, and who is first in turn too; the first round is to warm them. Each has
    its name, a URL, and the master of its nginx."""
    for number in range(ROUNDS + 1):
        for side, url, master in sides[:: -1 if number % 2 else 1]:
            before = computed(master)
            told = wrk(script, url)
            if number:
                each = (computed(master) - before) / told["requests"]
                found.setdefault(f"{name}, {side}", []).append(told["rate"])
                found.setdefault(f"{name}, {side}, p99", []).append(told["p99"])
                found.setdefault(f"{name}, {side}, cpu", []).append(each)


def master_of(home: Path) -> int:
    return int((home / "nginx.pid").read_text())


def computed(master: int) -> float:
    """Microseconds of processor time that the workers of an nginx have had."""
    workers = psutil.Process(master).children()
    told = (Path(f"/proc/{each.pid}/schedstat").read_text().split()[0] for each in workers)
    return sum(int(nanoseconds) for nanoseconds in told) / 1000


def wrk(script: Path, url: str) -> dict[str, float]:
    """`rate`: requests a second that are answered well; `p99`: seconds at the 99th percentile."""
    options = ("-t", "1", "-c", str(CLIENTS), "-d", str(SECONDS), "-s", str(script))
    said = subprocess.run(["wrk", *options, url], capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(said.stdout.rstrip().rpartition("\n")[2])
    if told["errors"] or not told["rate"]:
        raise AssertionError(f"{url}: {said.stdout}")
    return told


if __name__ == "__main__":
    alone(measure, sys.argv[1:])
