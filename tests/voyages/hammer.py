"""Clients that keep their connections busy: `hammer.py PORT HOST CONNECTIONS [PREFIX]`, until
stdin closes. PREFIX stands before every path.

Every tenth request is a POST, every hundredth takes the app a while. Prints `hammering` when all
are connected, and at the end one JSON object: `count`, `last` ({answer: when the last request that
got it was sent, CLOCK_MONOTONIC seconds}), `failures`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

PAUSE = 0.05  # seconds between two requests of one connection
PATIENCE = 10.0  # seconds for one answer
WHILE = 0.5  # seconds


class Hammer:
    def __init__(self, port: int, host: str, prefix: str = "") -> None:
        self.port = port
        self.prefix = prefix
        self.host = host
        self.count = 0
        self.last: dict[str, float] = {}
        self.failures: list[str] = []
        self.stopping = False

    async def connection(self, connected: asyncio.Barrier) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        await connected.wait()
        while not self.stopping:
            sent = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    answer = await self.ask(reader, writer)
                self.last[answer] = max(sent, self.last.get(answer, 0.0))
            except Exception as error:
                self.failures.append(
                    f"{time.monotonic() - sent:.3f} s after it was sent: {error!r}"
                )
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            await asyncio.sleep(PAUSE)
        writer.close()

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """One request; the version in its answer."""
        self.count += 1
        method, body = ("POST", "ahoy") if self.count % 10 == 0 else ("GET", "")
        path = self.prefix + (f"/after/{WHILE}" if self.count % 100 == 1 else "/")
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\n\r\n{body}".encode())
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()[:-1]
        fields = dict(line.split(": ", 1) for line in lines)
        if " 200 " not in status or fields["connection"] != "keep-alive":
            raise ValueError(f"{method} {path}: {status}, {fields}")
        said, _, version = (
            (await reader.readexactly(int(fields["content-length"]))).decode().partition(" ")
        )
        if said != method:
            raise ValueError(f"{method} {path}: this answers a {said}")
        return version

    async def run(self, connections: int) -> None:
        connected = asyncio.Barrier(connections + 1)
        clients = [asyncio.create_task(self.connection(connected)) for _ in range(connections)]
        await connected.wait()
        print("hammering", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        self.stopping = True
        await asyncio.gather(*clients)
        print(json.dumps({"count": self.count, "last": self.last, "failures": self.failures}))


if __name__ == "__main__":
    port, host, connections, *prefix = sys.argv[1:]
    asyncio.run(Hammer(int(port), host, *prefix).run(int(connections)))
