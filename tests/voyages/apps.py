"""Small apps for the voyages, as files."""

from __future__ import annotations

import json

SERVER = """\
import http.server, os, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/slow":
            time.sleep(1)
        status = int(os.environ.get("ANSWER", "200"))
        body = os.environ.get("SAYS", "hello").encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

time.sleep(float(os.environ.get("SLEEP", "0")))
print("listening on", os.environ["PORT"], flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def web(says: str = "hello", **variables: str) -> dict[str, str]:
    """An app in plain Python by a Procfile, which answers with what it says."""
    settings = {"SAYS": says, **variables}
    return {
        "Procfile": "web: python3 server.py\n",
        "server.py": SERVER,
        ".env": "".join(f"{name}={value!r}\n" for name, value in settings.items()),
    }


def slow_build(says: str, gate: str = "sleep 2") -> dict[str, str]:
    """The same, built by a step that takes its time: npm runs the `build` script."""
    return {
        **web(says),
        "package.json": '{"name": "slow", "version": "1.0.0", "private": true,'
        f' "scripts": {{"build": "echo building; {gate}; echo built"}}}}\n',
    }


TARDY = """\
const { version } = require('./package.json')
const server = require('http').createServer((request, response) => {
  response.statusCode = request.url === '/diagnostic' ? 500 : 200
  response.end(`${version} ${request.url}`)
})
setTimeout(() => server.listen(process.env.PORT), 1000 * (process.env.STARTUP_WAIT || 0))
"""


def tardy(version: str) -> dict[str, str]:
    """An app for `npm start` that answers with its version and the path, after a while."""
    package = {"name": "tardy", "version": version, "scripts": {"start": "node tardy.js"}}
    return {"package.json": json.dumps(package), "tardy.js": TARDY}
