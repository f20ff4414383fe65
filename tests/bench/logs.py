"""A service that logs as fast as it can: what the ship takes of it, and who else notices."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

from tests.bench.big import peak_growth
from tests.bench.measure import Figure, Line, more, seconds, under
from tests.bench.scene import Scene
from tests.voyages.harbour import Harbour

ASKED, APART = 300, 0.02  # questions, and seconds between them
MEMORY = under(32, "MB")
STALL = more(0.25)
FLOOD = """\
import http.server, os, threading

sink = [None]
block = b"GET /some/path?query=1 200 12ms 10.0.0.1 a client like any other, of some length\\n" * 800
null = os.open("/dev/null", os.O_WRONLY)
go = threading.Event()

def flood():
    while go.wait():
        os.write(sink[0], block)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        sink[0] = {"/log": 1, "/null": null}.get(self.path)
        go.clear() if sink[0] is None else go.set()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass

threading.Thread(target=flood, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def logs(scene: Scene) -> Iterator[Line]:
    """Against the same service, as busy, that writes all of it nowhere."""
    harbour = scene.harbour
    app = harbour.app({"server.py": FLOOD, "Procfile": "web: python3 server.py\n"}, "flood")
    url = app.push("flood").url
    harbour.get(f"{url}null")
    against = answers(harbour)
    before, idle = newest(harbour), harbour.ship.memory_info().rss
    with peak_growth(harbour.ship, idle) as grown:
        harbour.get(f"{url}log")
        began = time.monotonic()
        ours = answers(harbour)
        taken = (newest(harbour) - before) / (time.monotonic() - began)
    harbour.get(f"{url}calm")
    yield Line("an answer of the ship while a service floods its log : not", ours, against)
    worst, other = (Figure((max(one.samples),)) for one in (ours, against))
    yield Line("  the slowest of 300", worst, other, STALL)
    yield Line("  lines taken in a second", Figure((taken,), ""))
    yield Line("  memory that the ship took for it", Figure((grown[0],), "MB"), None, MEMORY)


def answers(harbour: Harbour) -> Figure:
    """How long the ship takes for questions that need nothing but its own process."""
    found = []
    for _ in range(ASKED):
        found.append(seconds(lambda: ask(harbour)))
        time.sleep(APART)
    return Figure(tuple(found))


def ask(harbour: Harbour) -> None:
    with socket.socket(socket.AF_UNIX) as ship:
        ship.connect(str(harbour.root / "run" / "ship"))
        ship.sendall(json.dumps({"hook": "command", "words": []}).encode() + b"\n")
        while ship.recv(1 << 16):
            pass


def newest(harbour: Harbour) -> int:
    """The id of the newest event."""
    return int(json.loads(harbour.starphleet("logs", "--json", "-n", "1").text)["id"])
