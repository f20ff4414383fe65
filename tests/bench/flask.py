"""A re-push of a Flask app against the app's own start."""

from __future__ import annotations

import http.client
import itertools
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.measure import Line, alternate, more, seconds, under
from tests.bench.scene import Scene
from tests.ports import free_port
from tests.voyages.harbour import App, Harbour, until

ROUNDS = 7
APP = {
    "requirements.txt": "flask==3.1.*\n",
    "Procfile": "web: flask --app app run --port $PORT\n",
    "app.py": 'from flask import Flask\napp = Flask(__name__)\n@app.get("/")\n'
    'def hello():\n    return open("version").read()\n',
    "version": "0",
}


def flask(scene: Scene) -> Iterator[Line]:
    """From `git push` to its return, the new version live and checked, requirements unchanged."""
    harbour = scene.harbour
    app = harbour.app(APP, "flask")
    url = app.push("flask").url
    (container,) = _containers(harbour)
    bare = harbour.home / "flask-bare"
    shutil.copytree(container / "app", bare, symlinks=True)
    push, cold = alternate(ROUNDS, again(harbour, app, url), lambda: cold_start(bare))
    yield Line("re-push of a Flask app : the app started bare", push, cold, more(0.8))
    yield Line("re-push of a Flask app", push, None, under(1.5))


def again(harbour: Harbour, app: App, url: str) -> Callable[[], float]:
    """Seconds of one more push of the app at `url`, which is live when it returns."""
    versions = itertools.count(1)

    def pushed() -> float:
        version = str(next(versions))
        app.commit({"version": version})
        taken = seconds(lambda: app.push("flask"))
        if harbour.get(url).text != version:
            raise AssertionError("the push returned before its version was live")
        until(lambda: len(_containers(harbour)) == 1, "the version before is gone")
        return taken

    return pushed


def _containers(harbour: Harbour) -> list[Path]:
    return list((harbour.root / "containers").glob("*flask-*"))


def cold_start(app: Path) -> float:
    """Seconds until the app in this directory answers when its process is started by itself."""
    port = free_port()
    environment = {"PATH": f"{app}/.venv/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [f"{app}/.venv/bin/flask", "--app", "app", "run", "--port", str(port)]
    began = time.monotonic()
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(argv, cwd=app, env=environment, stdout=nowhere, stderr=nowhere)
    try:
        while not answers(port):
            if process.poll() is not None:
                raise AssertionError(f"flask ended with {process.returncode}")
            time.sleep(0.002)
        return time.monotonic() - began
    finally:
        process.kill()
        process.wait()


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody answers HTTP there."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
