"""Webhooks: who is believed, what a payload is about, and what is answered."""

from __future__ import annotations

import hmac
import http.client
import json
from collections.abc import Collection
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from receiver import webhooks
from receiver.webhooks import LARGEST, MOST, Webhooks, repositories

SECRET = "a secret of ours"
JSON = "application/json"
GITHUB = {
    "ref": "refs/heads/main",
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
        text = json.dumps(GITHUB).encode()
        urls = {value for value in GITHUB["repository"].values() if "/" in value}  # type: ignore[attr-defined]
        form = urlencode({"payload": text.decode()}).encode()
        self.assertEqual(repositories(text, JSON), urls)
        self.assertEqual(repositories(form, "application/x-www-form-urlencoded"), urls)
        self.assertEqual(
            repositories(json.dumps(GITLAB).encode(), JSON), set(GITLAB["project"].values())
        )
        self.assertEqual(repositories(b'{"url": "https://x.org/y"}', JSON), {"https://x.org/y"})

    def test_what_names_none(self) -> None:
        """An empty body, and JSON of any other shape, name no repository and break nothing."""
        for body in (b"", b" ", b"{}", b"[]", b"1", b'{"repository": 3, "project": [{}]}'):
            self.assertIsNone(repositories(body, JSON), body)


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
        ]:
            status, told = self.hooks.answer(sender, headers, sent)
            self.assertEqual(status, 401, (sender, headers))
            self.assertNotIn(SECRET, told)
        self.assertEqual(self.asked, [])

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
        hooks = Webhooks(lambda: SECRET, lambda urls: 2)
        self.port = webhooks.listen(reactor, hooks)
        self.addCleanup(self.port.stopListening)

    async def ask(self, method: str, path: str, body: bytes, chunked: bool = False) -> int:
        def go() -> int:
            to = http.client.HTTPConnection("127.0.0.1", self.port.getHost().port, timeout=20)
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
        large = b" " * (LARGEST + 1)
        self.assertEqual(await self.ask("POST", "/poll", large), 413)
        self.assertEqual(await self.ask("POST", "/poll", large, chunked=True), 413)
        self.assertEqual(await self.ask("POST", "/poll", large[:-3] + b"{}"), 202)

    async def test_only_so_many(self) -> None:
        """Connections that say nothing take all places and no more; the next is turned away, and
        there is room again when they leave."""

        def go() -> None:
            port = self.port.getHost().port
            idle = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(MOST)]
            for one in idle:
                one.request("GET", "/")
                one.getresponse().read()
            with self.assertRaises((ConnectionError, http.client.HTTPException)):
                more = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                more.request("GET", "/")
                more.getresponse()
            for one in idle:
                one.close()

        await deferToThread(go)
        self.assertEqual(await self.ask("POST", "/poll", b""), 202)
