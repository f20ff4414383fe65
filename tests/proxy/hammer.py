"""Keep-alive clients that never pause: `hammer.py PORT TARGET CONNECTIONS`, until stdin closes.

Prints one JSON object: `answers` as [sent, app] (sent: CLOCK_MONOTONIC seconds), and `failures`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


class Hammer:
    def __init__(self, port: int, target: str) -> None:
        self.port = port
        self.request = f"GET {target} HTTP/1.1\r\nHost: ship\r\n\r\n".encode()
        self.answers: list[tuple[float, str]] = []
        self.failures: list[str] = []
        self.stopping = False

    async def connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while not self.stopping:
            sent = time.monotonic()
            try:
                writer.write(self.request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = reversed(head.split("\r\n")[1:-2])  # of two, Python reads the first
                fields = dict(line.lower().split(": ", 1) for line in lines)
                await reader.readexactly(int(fields["content-length"]))
                if " 200 " not in head.split("\r\n")[0]:
                    raise ValueError(head)
                self.answers.append((sent, fields["x-starphleet-container"]))
                if fields["connection"] == "close":
                    writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except Exception as error:
                self.failures.append(f"{time.monotonic()}: {error!r}")
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()

    async def run(self, connections: int) -> None:
        clients = [asyncio.create_task(self.connection()) for _ in range(connections)]
        print("hammering", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        self.stopping = True
        await asyncio.gather(*clients)
        print(json.dumps({"answers": self.answers, "failures": self.failures}))


if __name__ == "__main__":
    asyncio.run(Hammer(int(sys.argv[1]), sys.argv[2]).run(int(sys.argv[3])))
