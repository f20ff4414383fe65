"""Answers with its version: at once, after some seconds (`/after/3`), and on a websocket."""

import asyncio
import base64
import hashlib
import os
import re
from pathlib import Path

VERSION = Path(__file__).with_name("version").read_text().strip().encode()
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def client(reader, writer):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            method, path, _ = head.split(b"\r\n", 1)[0].split(b" ")
            if key := re.search(rb"(?im)^sec-websocket-key: *(\S+)", head):
                return await websocket(reader, writer, key[1])
            if length := re.search(rb"(?im)^content-length: *(\d+)", head):
                await reader.readexactly(int(length[1]))
            if path.startswith(b"/after/"):
                await asyncio.sleep(float(path.removeprefix(b"/after/")))
            body = method + b" " + VERSION
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def websocket(reader, writer, key):
    """Every text that comes in goes back with the version before it."""
    accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    while True:
        _, length = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        text = await reader.readexactly(length & 0x7F)
        text = VERSION + b" " + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))
        writer.write(bytes((0x81, len(text))) + text)


async def main():
    server = await asyncio.start_server(client, "127.0.0.1", int(os.environ["PORT"]), backlog=1024)
    async with server:
        await server.serve_forever()


asyncio.run(main())
