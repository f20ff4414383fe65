"""A relay that puts distance between a client and a server, in a process of its own.

Delays what passes by so many milliseconds each way and limits no bandwidth. As in a network, what
the far end does not take is not read for ever: at most `FLIGHT` bytes are under way.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

READ = 1 << 20
FLIGHT = 64  # reads under way, each way


@contextmanager
def distance(port: int, milliseconds: float) -> Iterator[int]:
    """A port of the loopback that leads to `port` over so many milliseconds each way."""
    relay = subprocess.Popen(
        [sys.executable, "-m", __name__, str(port), str(milliseconds)], stdout=subprocess.PIPE
    )
    assert relay.stdout is not None
    try:
        yield int(relay.stdout.readline())
    finally:
        relay.kill()
        relay.wait()
        relay.stdout.close()


async def _read(reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
    clock = asyncio.get_running_loop()
    data = b"-"
    while data:
        data = await reader.read(READ)
        await queue.put((clock.time(), data))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """One direction: each piece is written `delay` seconds after it was read, its end too."""
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(FLIGHT)
    reading = asyncio.create_task(_read(reader, queue))
    clock = asyncio.get_running_loop()
    try:
        while True:
            came, data = await queue.get()
            await asyncio.sleep(came + delay - clock.time())
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
    except OSError:
        writer.close()
    finally:
        reading.cancel()


async def _serve(target: int, delay: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target, limit=READ)
        await asyncio.gather(_carry(reader, far_writer, delay), _carry(far_reader, writer, delay))
        far_writer.close()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=READ)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
