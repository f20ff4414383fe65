"""A real git server over HTTPS, for fetching buildpacks and what commits keep elsewhere."""

from __future__ import annotations

import ctypes
import datetime
import ipaddress
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@frozen
class Place:
    """Where a server listens: an address, of the network that the process `pid` is in, if any."""

    host: str = "127.0.0.1"
    pid: int | None = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread opens meanwhile is in that network."""
        if self.pid is None:
            yield
            return
        kernel = ctypes.CDLL(None, use_errno=True)
        places = [Path("/proc/thread-self/ns/net"), Path(f"/proc/{self.pid}/ns/net")]
        with places[0].open() as own, places[1].open() as there:
            if kernel.setns(there.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                if kernel.setns(own.fileno(), 0):
                    os._exit(1)  # nobody could say where this thread is


HERE = Place()


def certificate(directory: Path, host: str = HERE.host) -> Path:
    """A self-signed certificate for an address with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address(host))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "server.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


class HttpsServer:
    """An HTTPS server with the certificate and key in `pem`, until `stop`."""

    def __init__(
        self, pem: Path, handler: type[BaseHTTPRequestHandler], place: Place = HERE
    ) -> None:
        self.pem = pem
        with place.entered():
            self.server = ThreadingHTTPServer((place.host, 0), handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://{place.host}:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class GitServer(HttpsServer):
    """Serves the repositories in `directory` by git http-backend until `stop`."""

    def __init__(self, directory: Path, place: Place = HERE) -> None:
        self.requests: list[str] = []
        super().__init__(certificate(directory, place.host), self.handler(directory), place)

    def handler(self, directory: Path) -> type[BaseHTTPRequestHandler]:
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                requests.append(self.path)
                path, _, query = self.path.partition("?")
                length = self.headers.get("Content-Length", "")
                env = {
                    "PATH": "/usr/bin:/bin",
                    "GIT_PROJECT_ROOT": str(directory),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": length,
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                }
                body = self.rfile.read(int(length or 0))
                done = subprocess.run(
                    ["git", "-c", "safe.directory=*", "http-backend"],
                    env=env, input=body, capture_output=True, check=False,
                )  # fmt: skip
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                lines = dict(line.split(": ", 1) for line in head.decode().splitlines())
                self.send_response(int(lines.pop("Status", "200")[:3]))
                for name, value in lines.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
