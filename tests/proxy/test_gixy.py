"""What a static analyser of nginx's configurations says of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from proxy.certificates import self_made
from proxy.instance import Instance, User
from proxy.protection import Sign
from proxy.render import generation_files
from proxy.routes import Route
from proxy.structure import Structure


def everything(number: int) -> Route:
    """A route with all that a route can have."""
    return Route(
        f"/a/s{number}",
        (f"s{number}.example.com", f"www.s{number}.example.com"),
        f"/a/s{number}/",
        port=10_000 + number,
        redirects=((f"old{number}.example.com", "https://new.example"),),
        request_headers=(("X-Asked", "$host ${uri} 'a' \"b\""),),
        response_headers=(("X-Said", "$host"),),
        origins=("https://a.example",),
        cached=number % 2 == 0,
        locations="client_max_body_size 1m; expires 1h; proxy_read_timeout 5s;"
        if number % 3 == 0
        else "",
    )


def largest() -> Structure:
    structure = Structure().with_route(Route("/", (), "/"))
    for number in range(200):
        structure = structure.with_route(everything(number))
    pair = self_made(["ship.example"], time.time())
    return evolve(
        structure,
        certificates={"": pair, "*.example.com": pair, "s1.example.com": pair},
        signs={
            "/alias/": Sign("/alias/", service="/a/s1"),
            "/away/": Sign("/away/", url="https://a.example/"),
        },
    )


class GixyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.prefix = Path(tempfile.mkdtemp(prefix="gixy-"))
        self.addCleanup(shutil.rmtree, self.prefix)
        self.instance = Instance(
            prefix=self.prefix,
            modules=Path("/usr/lib/nginx/modules"),
            ship="ship.example",
            bind="0.0.0.0",
            port=80,
            worker_user=User("www-data", "www-data"),
            workers=2,
            files=1024,
            https_port=443,
            https_redirect=True,
            hsts=31_536_000,
        )

    def findings(self, structure: Structure, planted: str = "") -> set[tuple[str, str]]:
        """The checks that found something, and the block that each found it in."""
        files = generation_files(self.instance, structure, 1)
        text = files["nginx.conf"]
        assert isinstance(text, str)
        # gixy does not know this directive, and would take all that follows it for its content.
        text = text.replace("exit_worker_by_lua_block", "init_worker_by_lua_block")
        head, brace, tail = text.rpartition("}")
        file = self.prefix / "nginx.conf"
        file.write_text(head + planted + brace + tail)
        argv = [str(Path(sys.executable).with_name("gixy")), "-f", "json", str(file)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return {(each["plugin"], self.innermost(each["config"])) for each in found}

    @staticmethod
    def innermost(block: str) -> str:
        opened = [line.strip() for line in block.splitlines() if line.endswith("{")]
        return opened[-1] if opened else block.strip()

    def test_nothing_is_found(self) -> None:
        """The analyser finds nothing in the largest configuration, with all kinds of ways in it."""
        self.assertEqual(self.findings(largest()), set())

    def test_without_tls(self) -> None:
        """Nor does it on a ship without TLS."""
        self.instance = evolve(self.instance, https_port=None, https_redirect=False, hsts=0)
        self.assertEqual(self.findings(largest()), set())

    def test_behind_proxies(self) -> None:
        """Nor behind a balancer, with TLS of its own and without."""
        self.instance = evolve(self.instance, proxies=("10.0.0.0/8", "fd00::/8"))
        self.assertEqual(self.findings(largest()), set())
        self.instance = evolve(self.instance, https_port=None)
        self.assertEqual(self.findings(largest()), set())

    def test_something_would_be_found(self) -> None:
        """The check is worth something: what is planted, it finds."""
        small = Structure().with_route(everything(1))
        planted = (
            "server { listen 81; server_name ~evil; "
            "location /split/ { return 302 https://a.example$uri; } "
            "location /any/ { proxy_pass http://$arg_host; } "
            "location /files { alias /srv/files/; } }"
        )
        found = {plugin for plugin, _ in self.findings(small, planted)}
        self.assertLessEqual({"http_splitting", "ssrf", "alias_traversal"}, found)
