"""Webhooks: who is believed, what a payload is about, and what is answered."""

from __future__ import annotations

import contextlib
import hmac
import http.client
import json
import shutil
import socket
from collections.abc import Collection
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from receiver import webhooks
from receiver.webhooks import LARGEST, MOST, Webhooks, repositories

SECRET = "a secret of ours"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
GITHUB = {
    "ref": "refs/heads/main",
    "head_commit": {"message": "Grüße & more"},
    "repository": {
        "name": "shop",
        "html_url": "https://github.com/us/shop",
        "clone_url": "https://github.com/us/shop.git",
        "ssh_url": "git@github.com:us/shop.git",
    },
}
GITLAB = {
    "project": {
        "git_ssh_url": "git@gitlab.com:us/shop.git",
        "git_http_url": "https://gitlab.com/us/shop.git",
    }
}


def signature(body: bytes, secret: str = SECRET) -> str:
    return hmac.digest(secret.encode(), body, "sha256").hex()


class Payloads(SynchronousTestCase):
    def test_the_repository_is_found(self) -> None:
        """Every URL of the repository is taken, from GitHub's form and JSON, GitLab's project, and
        a plain `url`."""
        text = json.dumps(GITHUB, ensure_ascii=False).encode()
        urls = {value for value in GITHUB["repository"].values() if "/" in value}  # type: ignore[attr-defined]
        form = urlencode({"payload": text.decode()}).encode()
        self.assertEqual(repositories(text, JSON), urls)
        self.assertEqual(repositories(form, FORM), urls)
        self.assertEqual(
            repositories(json.dumps(GITLAB).encode(), JSON), set(GITLAB["project"].values())
        )
        self.assertEqual(repositories(b'{"url": "https://x.org/y"}', JSON), {"https://x.org/y"})

    def test_what_names_none(self) -> None:
        """An empty body names none; JSON of any other shape has no URL in it, whatever type
        `curl -d` says it is of."""
        for body in (b"", b" "):
            self.assertIsNone(repositories(body, JSON), body)
        for body in (b"{}", b"[]", b"1", b'{"repository": 3, "project": [{}]}', b'{"ulr": "x"}'):
            for content_type in (JSON, FORM):
                self.assertEqual(repositories(body, content_type), frozenset(), body)
        self.assertEqual(repositories(b'{"url": "https://x.org/y"}', FORM), {"https://x.org/y"})


class Answers(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[Collection[str] | None] = []
        self.secret = SECRET
        self.hooks = Webhooks(lambda: self.secret, self.hurry)

    def hurry(self, urls: Collection[str] | None) -> int:
        self.asked.append(urls)
        return 1 if urls is None or "https://github.com/us/shop.git" in urls else 0

    def test_each_sender_is_believed_by_its_own_proof(self) -> None:
        """GitHub and Gitea sign, GitLab sends the token, anybody may send it as a bearer."""
        body = json.dumps(GITHUB).encode()
        for sender, headers in [
            ("github", {"x-hub-signature-256": f"sha256={signature(body)}"}),
            ("gitea", {"x-gitea-signature": signature(body)}),
            ("gitlab", {"x-gitlab-token": SECRET}),
            ("poll", {"authorization": f"Bearer {SECRET}"}),
        ]:
            self.assertEqual(self.hooks.answer(sender, headers, body), (202, "asked now: 1"))
        self.assertEqual(len(self.asked), 4)

    def test_nobody_else_is(self) -> None:
        """Without a proof, with one of another secret, of another body, or with another sender's,
        nothing is asked and the answer is 401."""
        body = json.dumps(GITHUB).encode()
        right = f"sha256={signature(body)}"
        for sender, headers, sent in [
            ("github", {}, body),
            ("github", {"x-hub-signature-256": ""}, b""),
            ("github", {"x-hub-signature-256": f"sha256={signature(body, 'x')}"}, body),
            ("github", {"x-hub-signature-256": right}, body + b" "),
            ("github", {"authorization": f"Bearer {SECRET}"}, body),
            ("gitlab", {"x-gitlab-token": SECRET + "é"}, body),
            ("gitea", {"x-hub-signature-256": right}, body),
            ("poll", {"authorization": "Bearer "}, body),
            ("poll", {"authorization": SECRET}, body),
        ]:
            status, told = self.hooks.answer(sender, headers, sent)
            self.assertEqual(status, 401, (sender, headers))
            self.assertNotIn(SECRET, told)
        self.assertEqual(self.asked, [])

    def test_a_secret_of_any_letters(self) -> None:
        """A secret that is not ASCII, or not even text, is compared byte for byte."""
        for secret in ("pässwort", "a\udcff"):
            self.secret = secret
            sent = secret.encode("utf-8", "surrogateescape").decode("latin-1")
            self.assertEqual(self.hooks.answer("gitlab", {"x-gitlab-token": sent}, b"{}")[0], 400)
            self.assertEqual(self.hooks.answer("gitlab", {"x-gitlab-token": "x"}, b"{}")[0], 401)

    def test_refusals_do_not_fill_the_log(self) -> None:
        """However many are refused, one line in a while says so, and how many they were."""
        now = 0.0
        self.hooks = Webhooks(lambda: SECRET, self.hurry, lambda: now)
        told: list[int] = []
        with patch.object(webhooks._log, "warn", lambda text, count, **more: told.append(count)):
            for _ in range(100):
                self.hooks.answer("gitlab", {}, b"")
            now = 61.0
            self.hooks.answer("gitlab", {}, b"")
        self.assertEqual(told, [1, 100])

    def test_without_a_secret_nobody_is(self) -> None:
        """Where no secret is set, an empty one opens nothing; the answer says what to set."""
        self.secret = ""
        for headers in ({"x-gitlab-token": ""}, {}):
            status, told = self.hooks.answer("gitlab", headers, b"{}")
            self.assertEqual(status, 403)
            self.assertIn("STARPHLEET_HOOK_SECRET", told)
        self.assertEqual(self.asked, [])

    def test_what_else_may_come(self) -> None:
        """A ping is greeted; no JSON, no repository, another repository and an unknown sender are
        told apart; an empty poll asks everything."""
        bearer = {"authorization": f"Bearer {SECRET}"}
        token = {"x-gitlab-token": SECRET}
        ping = {"x-hub-signature-256": f"sha256={signature(b'{}')}", "x-github-event": "ping"}
        self.assertEqual(self.hooks.answer("github", ping, b"{}")[0], 200)
        self.assertEqual(self.hooks.answer("gitlab", token, b"{"), (400, "the body is not JSON"))
        self.assertEqual(self.hooks.answer("gitlab", token, b"[" * 100_000)[0], 400)
        self.assertEqual(self.hooks.answer("gitlab", token, b"{}")[0], 400)
        self.assertEqual(self.hooks.answer("svn", bearer, b"{}")[0], 404)
        self.assertEqual(self.asked, [])
        other = json.dumps(GITLAB).encode()
        self.assertIn("nothing here follows", self.hooks.answer("gitlab", token, other)[1])
        self.assertEqual(self.hooks.answer("poll", bearer, b""), (202, "asked now: 1"))
        self.assertIsNone(self.asked[-1])


class Server(TestCase):
    def setUp(self) -> None:
        directory = Path(mkdtemp(prefix="hooks-"))
        self.addCleanup(shutil.rmtree, directory)
        self.path = directory / "socket"
        hooks = Webhooks(lambda: SECRET, lambda urls: 2)
        listening = webhooks.listen(reactor, self.path, hooks)
        self.addCleanup(listening.stopListening)

    def connection(self) -> http.client.HTTPConnection:
        to = http.client.HTTPConnection("ship", timeout=20)
        to.sock = socket.socket(socket.AF_UNIX)
        to.sock.connect(str(self.path))
        return to

    async def ask(self, method: str, path: str, body: bytes, chunked: bool = False) -> int:
        def go() -> int:
            to = self.connection()
            try:
                headers = {"Authorization": f"Bearer {SECRET}"}
                sent = iter([body]) if chunked else body
                to.request(method, path, sent, headers, encode_chunked=chunked)
                return to.getresponse().status
            finally:
                to.close()

        status: int = await deferToThread(go)
        return status

    async def test_over_http(self) -> None:
        """A POST is answered, any other method is not allowed, and a body that is too large is
        refused whether or not it says its length."""
        self.assertEqual(await self.ask("POST", "/poll", b""), 202)
        self.assertEqual(await self.ask("GET", "/poll", b""), 405)
        self.assertEqual(await self.ask("HEAD", "/poll", b""), 405)
        self.assertEqual(await self.ask("POST", "/", b""), 202)
        large = b" " * (LARGEST + 1)
        self.assertEqual(await self.ask("POST", "/poll", large), 413)
        self.assertEqual(await self.ask("POST", "/poll", large, chunked=True), 413)
        self.assertEqual(await self.ask("POST", "/poll", b'{"url": "x"}'.ljust(LARGEST)), 202)

    async def test_only_so_many(self) -> None:
        """Connections that say nothing take all places and no more; the next is turned away, and
        there is room again when they leave."""

        def go() -> None:
            idle = [self.connection() for _ in range(MOST)]
            for one in idle:
                one.request("GET", "/")
                one.getresponse().read()
            with self.assertRaises((ConnectionError, http.client.HTTPException)):
                more = self.connection()
                more.request("GET", "/")
                more.getresponse()
            for one in idle:
                one.close()

        await deferToThread(go)
        while True:  # until the server has seen that they left
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                self.assertEqual(await self.ask("POST", "/poll", b""), 202)
                break
