"""What a container exposes on the host, and that it stays so."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time

from twisted.internet.threads import deferToThread

from containers.interface import Address
from containers.lxc import net
from tests.containers.lxc_scene import PYTHON, LxcScene

ANSWER = """
import socket, sys
one = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    asked, _ = one.accept()
    asked.sendall(b"here"); asked.close()
"""


class ExposedTests(LxcScene):
    async def serve_exposed(self) -> int:
        """A service that is exposed; its port."""
        with socket.create_server(("", 0)) as free:
            port: int = free.getsockname()[1]
        address = await self.serve(await self.make("a"), PYTHON, "-c", ANSWER, str(port))
        await self.runtime.expose({port: Address(address.host, port)})
        return port

    async def answers(self, host: object, port: int) -> bool:
        """Whether it answers there; it may have begun just now."""
        return await deferToThread(self.asked, str(host), port)

    def asked(self, host: str, port: int) -> bool:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((host, port), 1) as one:
                return one.recv(9) == b"here"
            time.sleep(0.05)
        return False

    def gone(self, host: object, port: int) -> bool:
        """Whether nothing answers there any more."""
        try:
            socket.create_connection((str(host), port), 1).close()
        except OSError:
            return True
        return False

    async def test_by_both_addresses(self) -> None:
        """What is exposed answers at the ship's addresses, of IPv6 too where the host has it."""
        port = await self.serve_exposed()
        zone = self.runtime.plan.tests
        for host in filter(None, ("127.0.0.1", zone.gateway, zone.gateway6)):
            self.assertTrue(await self.answers(host, port), host)
        await self.runtime.expose({})
        for host in filter(None, ("127.0.0.1", zone.gateway, zone.gateway6)):
            self.assertTrue(await deferToThread(self.gone, host, port), host)

    async def test_upheld(self) -> None:
        """The ship's rules, flushed by somebody, are put back while a service is there."""
        port = await self.serve_exposed()
        self.assertTrue(await self.answers("127.0.0.1", port))
        subprocess.run(["nft", "delete", "table", "inet", self.runtime.plan.tag], check=True)  # noqa: ASYNC221 - of this test alone
        self.assertTrue(await deferToThread(self.gone, "127.0.0.1", port))
        self.patch(net, "STANDS", 0.0)
        await self.runtime.uphold()
        self.assertTrue(await self.answers("127.0.0.1", port))
