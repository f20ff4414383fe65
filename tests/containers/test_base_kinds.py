"""The ways to name a base, and where archives and images of it come from."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from containers.interface import ContainerError
from containers.lxc import bases as module
from containers.lxc.bases import Archive, Image, Script, parse
from containers.lxc.idmap import outside
from containers.spawn import launch, run
from tests.buildpacks.gitserver import HttpsServer, certificate
from tests.containers.base_scene import FULL, PATH, SLIM, Scene, nobody_listens

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes bases")


class ParseTests(SynchronousTestCase):
    def test_bases(self) -> None:
        """Each form of STARPHLEET_BASE means its base."""
        digest = "0a" * 32
        for text, base in (
            ("", FULL),
            ("starphleet-base", FULL),
            ("slim", SLIM),
            ("starphleet-base-slim", SLIM),
            ("worker", Script("worker", b"text")),
            ("https://host/a.tgz?x=1#2", Archive("https://host/a.tgz?x=1#2")),
            (f"https://host/a#sha256={digest}", Archive(f"https://host/a#sha256={digest}", digest)),
            ("http://127.0.0.1:8000/a", Archive("http://127.0.0.1:8000/a")),
            ("http://[::1]/a", Archive("http://[::1]/a")),
            ("docker://debian:12", Image("docker://debian:12")),
            (
                "docker://quay.io:443/a/b_c@sha256:" + digest,
                Image("docker://quay.io:443/a/b_c@sha256:" + digest),
            ),
        ):
            self.assertEqual(parse(text, {"worker": b"text"}), base)

    def test_script_wins(self) -> None:
        """A script of the headquarters wins over what the ship provides."""
        self.assertEqual(parse("slim", {"slim": b"x"}), Script("slim", b"x"))

    def test_refused(self) -> None:
        """Anything else is refused in one line without a login or query in it."""
        for text in (
            "nothing",
            "http://host/a.tgz",
            "http://127.0.0.1.example.com/a",
            "https://",
            "https:///a",
            "https://host:0/a",
            "https://host:x/a",
            "https://user:secret@ho st/a?secret",
            "http://user:secret@host/a?secret#secret",
            'https://host/"a',
            "https://host/\\a",
            "https://host/a\nb",
            "https://host/a#sha256=xyz",
            "https://host/a#sha256=" + "0A" * 32,
            "docker://",
            "docker://-x",
            "docker://Debian",
            "docker://debian:12 --x",
            "docker://debian:12\n",
            "docker-archive:/etc/passwd",
            "oci:/etc",
            "/etc/passwd",
            "../x",
        ):
            with self.assertRaises(ContainerError, msg=text) as caught:
                parse(text, {})
            self.assertNotIn("\n", str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))


def tgz(**files: bytes) -> bytes:
    """An archive with these files; `__` in a name is a slash."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo("./" + name.replace("__", "/"))
            info.size, info.uid = len(data), 1000
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def handler(answers: dict[str, bytes], asked: list[str]) -> type[BaseHTTPRequestHandler]:
    """Answers what is in `answers`; `/to?URL` redirects there, `/loop` to itself."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            path, _, query = self.path.partition("?")
            if path in ("/to", "/loop"):
                self.send_response(302)
                self.send_header("Location", query or "/loop")
                self.end_headers()
                return
            data = answers.get(path)
            self.send_response(404 if data is None else 200)
            self.end_headers()
            self.wfile.write(data or b"nothing")

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class ArchiveTests(Scene):
    def setUp(self) -> None:
        super().setUp()
        self.data = tgz(etc__os=b"x")
        self.answers = {"/a.tgz": self.data}
        self.asked: list[str] = []
        pem = certificate(self.around)
        self.server = HttpsServer(pem, handler(self.answers, self.asked))
        self.addCleanup(self.server.stop)
        self.env["SSL_CERT_FILE"] = str(pem)
        self.url = self.server.url

    async def fails(self, why: str, path: str) -> None:
        bases = self.bases()
        with self.assertRaisesRegex(ContainerError, why) as caught:
            await bases.layers(parse(self.url + path, {}), nobody_listens)
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(self.left(), [])

    async def test_fetched(self) -> None:
        """It is fetched by https, unpacked with its owners mapped, and never fetched again."""
        bases, base = self.bases(), parse(f"{self.url}/to?/a.tgz", {})
        (layer,) = await bases.layers(base, nobody_listens)
        self.assertEqual((layer / "etc/os").read_bytes(), b"x")
        self.assertEqual((layer / "etc/os").stat().st_uid, outside(1000))
        self.assertEqual((layer / "tmp").stat().st_mode & 0o7777, 0o1777)
        self.assertEqual(await self.bases().layers(base, nobody_listens), (layer,))
        self.assertEqual(self.asked, ["/to?/a.tgz", "/a.tgz"])
        again = await bases.layers(parse(f"{self.url}/to?/a.tgz#2", {}), nobody_listens)
        self.assertNotEqual(again, (layer,))

    async def test_of_lxc(self) -> None:
        """Where the archive has a rootfs/, as LXC's do, that is the base."""
        self.answers["/lxc.tgz"] = tgz(config=b"lxc.x = y", rootfs__etc__os=b"in")
        (layer,) = await self.bases().layers(parse(f"{self.url}/lxc.tgz", {}), nobody_listens)
        self.assertEqual((layer / "etc/os").read_bytes(), b"in")
        self.assertTrue((layer / "app").is_dir())
        self.assertFalse((layer / "config").exists())
        self.assertEqual(sorted(os.listdir(layer.parent)), ["about", "layer"])  # noqa: PTH208

    async def test_checksum(self) -> None:
        """With a checksum it is that file or none."""
        right = hashlib.sha256(self.data).hexdigest()
        await self.fails(f"its SHA-256 is {right}, not 0000", f"/a.tgz#sha256={'0' * 64}")
        await self.bases().layers(parse(f"{self.url}/a.tgz#sha256={right}", {}), nobody_listens)

    async def test_not_there(self) -> None:
        """What is answered with anything but 200 is an error that says so."""
        await self.fails("^https://127.0.0.1:[0-9]+/b: the answer is 404$", "/b?secret=1")

    async def test_redirect_loop(self) -> None:
        """Redirects end."""
        await self.fails("^https://[^ ]*/loop: it redirects more than 5 times$", "/loop")
        self.assertEqual(len(self.asked), 6)

    async def test_redirect_to_the_clear(self) -> None:
        """A redirect leads to https only; nobody else is asked."""
        await self.fails("http://example.com/x is not https", "/to?http://example.com/x")
        await self.fails("this is not a URL", "/to?file:///etc/passwd")

    async def test_certificate(self) -> None:
        """A server that nobody vouches for is not believed."""
        del self.env["SSL_CERT_FILE"]
        self.env["CURL_CA_BUNDLE"] = "/etc/ssl/certs/ca-certificates.crt"
        await self.fails("certificate", "/a.tgz")

    async def test_too_big(self) -> None:
        """A download is bounded."""
        self.patch(module, "MOST_FETCHED", 5000)
        self.answers["/big"] = os.urandom(20_000)
        await self.fails("has more than 5000 bytes", "/big")

    async def test_evil(self) -> None:
        """What leads out of the directory is refused, and nothing is left."""
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            info = tarfile.TarInfo("dev/sda")
            info.type = tarfile.BLKTYPE
            archive.addfile(info)
        self.answers["/evil"] = file.getvalue()
        await self.fails(r"^https://127.0.0.1:\d+/evil: 'dev/sda' is a device node$", "/evil")

    async def test_loopback(self) -> None:
        """On the loopback http will do, past any proxy."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self.answers, self.asked))
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        self.env["http_proxy"] = "http://127.0.0.1:1"
        try:
            url = f"http://127.0.0.1:{server.server_port}/a.tgz"
            await self.bases().layers(parse(url, {}), nobody_listens)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    async def test_login(self) -> None:
        """A login in the URL is nowhere in an argv or an error."""
        with_login = self.url.replace("https://", "https://me:secret@")
        with self.assertRaisesRegex(ContainerError, "404") as caught:
            await self.bases().layers(Archive(f"{with_login}/b"), nobody_listens)
        self.assertNotIn("secret", str(caught.exception))


REGISTRY = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {data}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
TOOLS = ("skopeo", "umoci", "docker-registry")


class ImageTests(Scene):
    async def command(self, *argv: str) -> None:
        done = await run(reactor, argv, env={"PATH": PATH, "HOME": str(self.around)})
        self.assertTrue(done.exit.ok, done.output)

    async def registry(self) -> str:
        """A registry on the loopback with the image `team/one:v1`; answers its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config, layout, bundle = (self.around / name for name in ("config", "layout", "bundle"))
        config.write_text(REGISTRY.format(data=self.around / "data", port=port))
        child = launch(reactor, ["docker-registry", "serve", str(config)], env={"PATH": PATH})
        self.addCleanup(lambda: Deferred.fromCoroutine(child.put_down(1)))
        await self.command("umoci", "init", "--layout", str(layout))
        await self.command("umoci", "new", "--image", f"{layout}:one")
        await self.command("umoci", "unpack", "--image", f"{layout}:one", str(bundle))
        (bundle / "rootfs/bin").mkdir()
        (bundle / "rootfs/bin/su").write_bytes(b"su")
        (bundle / "rootfs/bin/su").chmod(0o4755)
        os.chown(bundle / "rootfs/bin", 1000, 1000)
        await self.command("umoci", "repack", "--image", f"{layout}:one", str(bundle))
        await self.until(lambda: answers(port))
        to = f"docker://127.0.0.1:{port}/team/one:v1"
        source = f"oci:{layout}:one"
        plain = "--dest-tls-verify=false"
        await self.command("skopeo", "--insecure-policy", "copy", plain, source, to)
        return to

    @pytest.mark.skipif(
        any(shutil.which(tool, path=PATH) is None for tool in TOOLS),
        reason=f"without {', '.join(TOOLS)}",
    )
    async def test_pulled(self) -> None:
        """An image of a registry becomes a base, its layers put together, its owners mapped."""
        reference = await self.registry()
        bases = self.bases()
        (layer,) = await bases.layers(parse(reference, {}), nobody_listens)
        status = (layer / "bin/su").stat()
        self.assertEqual((status.st_uid, status.st_mode & 0o7777), (outside(0), 0o4755))
        self.assertEqual((layer / "bin").stat().st_uid, outside(1000))
        self.assertTrue((layer / "app").is_dir())
        self.assertEqual(sorted(os.listdir(layer.parent)), ["about", "layer"])  # noqa: PTH208
        with self.assertRaisesRegex(ContainerError, "two:v1: skopeo: .*"):
            await bases.layers(parse(reference.replace("one", "two"), {}), nobody_listens)
        self.assertEqual(self.left(), [])

    async def test_not_installed(self) -> None:
        """Without the programs for it, an error names them."""
        self.env["PATH"] = "/nowhere"
        with self.assertRaisesRegex(
            ContainerError, "^docker://debian:12: skopeo and umoci are not installed$"
        ):
            await self.bases().layers(Image("docker://debian:12"), nobody_listens)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
