"""A browser goes through the front door, by http and by https."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from attrs import frozen

from tests.ports import free_port
from tests.voyages.base import Base, autodeploy, live
from tests.voyages.browser import Browser, Page
from tests.voyages.crew import Person
from tests.voyages.harbour import Harbour, until

SECRET = "a secret of the login service, long enough"

LOGIN = """\
import base64, hmac, html, http.server, json, os, time
from urllib.parse import parse_qs, urlsplit

FORM = '''<!doctype html><title>Who are you?</title>
<form name=login method=post><input name=target type=hidden value="%s"><input name=user></form>'''

def encoded(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=")

def token(user):
    now = int(time.time())
    parts = {"alg": "HS256", "typ": "JWT"}, {"sub": user, "iat": now, "exp": now + 600}
    text = b".".join(encoded(json.dumps(part).encode()) for part in parts)
    signature = hmac.digest(os.environ["JWT_SECRET"].encode(), text, "sha256")
    return (text + b"." + encoded(signature)).decode()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        target = parse_qs(urlsplit(self.path).query).get("target", [""])[0]
        self.answer(200, FORM % html.escape(target), ("Content-Type", "text/html"))

    def do_POST(self):
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        target = sent["target"][0]
        joint = "&" if "?" in target else "?"
        self.answer(303, "", ("Location", f"{target}{joint}jwt={token(sent['user'][0])}"))

    def answer(self, status, text, header):
        self.send_response(status)
        self.send_header(*header)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

CREW = """\
import base64, hashlib, http.server, os

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        who = self.headers.get("x-identity", "nobody")
        if self.headers.get("Upgrade") == "websocket":
            return self.echo(who)
        text = who.encode() if self.path == "/who" else open("page.html", "rb").read()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def echo(self, who):
        key = self.headers["Sec-WebSocket-Key"] + GUID
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.close_connection = True
        while (head := self.rfile.read(2)) and head[0] == 0x81:
            mask = self.rfile.read(4)
            sent = self.rfile.read(head[1] & 0x7F)
            text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(sent))
            answer = f"{who} said {text.decode()}".encode()
            self.wfile.write(bytes((0x81, len(answer))) + answer)

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
ECHOED = """\
new Promise(done => {
    const socket = new WebSocket(%s)
    socket.onopen = () => socket.send('ahoy')
    socket.onmessage = message => done(message.data)
    socket.onerror = () => done('refused')
})"""
PAGE = f"""\
<!doctype html><title>Crew</title><script type=module>
const echoed = await {ECHOED % "new URL('echo', location.href.replace(/^http/, 'ws'))"}
const who = await (await fetch('who')).text()
window.seen = {{where: location.href, cookies: document.cookie, who, echoed}}
</script>
"""
SHOWN = "(document.documentElement?.innerText ?? '')"
PROCFILE = "web: python3 server.py\n"
ASKED = "log?day=2%2F3&q=a+b"


@frozen
class Pier:
    """Where a browser finds things: a ship with a service of each login site, and its login."""

    harbour: Harbour
    https: int
    browser: Browser

    def url(self, scheme: str, path: str, host: str = "localhost") -> str:
        port = self.https if scheme == "https" else self.harbour.http_port
        return f"{scheme}://{host}:{port}/{path}"


@pytest.fixture(scope="module")
def pier(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pier]:
    """`crew` sends people to a path of the ship for a token, `far` to another site, `open` to
    neither."""
    https = free_port()
    settings = {"STARPHLEET_PULSE": "1", "STARPHLEET_HTTPS_PORT": str(https)}
    with (
        Browser(tmp_path_factory.mktemp("browser")) as browser,
        Harbour(tmp_path_factory.mktemp("harbour"), settings) as harbour,
    ):
        pier = Pier(harbour, https, browser)
        harbour.up()
        base = Base.new(harbour)
        base.service("signs", {"Procfile": PROCFILE, "server.py": LOGIN})
        base.service("aboard", {"Procfile": PROCFILE, "server.py": CREW, "page.html": PAGE})
        secret, name = f"export JWT_SECRET='{SECRET}'", "server_names default login.localhost"
        files = {"login/orders": autodeploy("signs", secret, name)}
        for at, site in ("crew", "/login/"), ("far", pier.url("https", "", "login.localhost")):
            lines = "export SECURITY_MODE=jwt", secret, f"export JWT_AUTH_SITE={site}"
            files[f"{at}/orders"] = autodeploy("aboard", *lines)
        files["open/orders"] = autodeploy("aboard")
        base.order(files)
        base.follow()
        for at in ("login", "crew", "far", "open"):
            until(partial(live, harbour, f"{at}/"), f"{at} is live")
        yield pier


def log_in(page: Page) -> None:
    """Fill in the form that the page is sent to."""
    page.wait_for("document.readyState == 'complete' && 'login' in document.forms", "a login")
    page.run("document.forms.login.user.value = 'ann'; document.forms.login.requestSubmit()")


def seen(page: Page) -> dict[str, Any]:
    """What the page of the service saw when it had seen all."""
    found: dict[str, Any] = page.wait_for("window.seen", "the page of the service")
    return found


def reload(page: Page) -> None:
    page.run("delete window.seen; location.reload()")


SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])
SITES = pytest.mark.parametrize("at", ["crew", "far"])


@SCHEMES
@SITES
def test_a_browser_that_knows_nothing_ends_where_it_wanted(
    pier: Pier, scheme: str, at: str
) -> None:
    """It is asked who it is, and then on the very page it asked for, logged in; the token is
    neither in its addresses nor there for scripts, the identity is."""
    page, wanted = pier.browser.visitor(), pier.url(scheme, f"{at}/{ASKED}")
    page.go(wanted)
    log_in(page)
    found = seen(page)
    assert (found["where"], found["who"]) == (wanted, "ann")
    assert not [url for url in page.history if "jwt" in url]
    assert found["cookies"].startswith("starphleet_user=")
    assert "jwt" not in found["cookies"]
    token = page.cookies["jwt"]
    assert (token["httpOnly"], token["secure"]) == (True, scheme == "https")
    assert token["sameSite"] == "Lax"


@SCHEMES
def test_a_page_has_its_websocket(pier: Pier, scheme: str) -> None:
    """A websocket that the page opens passes by its cookie, and the service learns who it is; one
    that a page of another site opens does not, for the same person."""
    page = pier.browser.visitor()
    page.go(pier.url(scheme, f"crew/{ASKED}"))
    log_in(page)
    assert seen(page)["echoed"] == "ann said ahoy"
    page.go(pier.url(scheme, "", "login.localhost"))
    echoed = {at: page.run(ECHOED % f"'{pier.url(scheme, at)}/echo'") for at in ("open", "crew")}
    assert echoed == {"open": "nobody said ahoy", "crew": "refused"}


@SCHEMES
def test_a_login_lasts_until_its_cookie_goes(pier: Pier, scheme: str) -> None:
    """A reload asks for no login; once the token's cookie is gone one is asked for, whatever the
    identity's cookie says."""
    page, wanted = pier.browser.visitor(), pier.url(scheme, f"crew/{ASKED}")
    page.go(wanted)
    log_in(page)
    first = seen(page)
    reload(page)
    assert seen(page) == first
    page.tell("Network.deleteCookies", name="jwt", url=wanted)
    assert set(page.cookies) == {"starphleet_user"}
    reload(page)
    page.wait_for("'login' in document.forms", "a login")
    assert urlsplit(page.run("location.href")).path == "/login/"


def test_no_log_has_a_token(pier: Pier) -> None:
    """Tokens are in addresses and in cookies; in what the ship, nginx and the services wrote
    none is."""
    page = pier.browser.visitor()
    page.go(pier.url("http", f"crew/{ASKED}"))
    log_in(page)
    seen(page)
    logs = [pier.harbour.home / "ship.log", *pier.harbour.root.rglob("*.log")]
    begun = page.cookies["jwt"]["value"][:10]  # what all of them begin with
    assert begun.startswith("eyJ")
    assert not [log for log in logs if begun in log.read_text(errors="replace")]


@SCHEMES
def test_a_link_lets_a_browser_in(pier: Pier, scheme: str) -> None:
    """Who opens the link to a private service is in, at its page and its websocket, and the link
    is neither in the addresses behind nor there for scripts; whoever has it later is not."""
    name = f"hidden-{scheme}"
    app = pier.harbour.app({"Procfile": PROCFILE, "server.py": CREW, "page.html": PAGE}, name)
    app.push(name, "master", "-o", "private")
    link = urlsplit(Person(pier.harbour, pier.harbour.key).open(name)).query
    wanted = pier.url(scheme, f"~{name}/log")
    page, other = pier.browser.visitor(), pier.browser.visitor()
    page.go(f"{wanted}?{link}")
    found = seen(page)
    assert (found["where"], found["who"]) == (wanted, "ann")
    assert found["echoed"] == "ann said ahoy"
    assert not [url for url in page.history if "starphleet_link" in url]
    assert "session" not in found["cookies"]
    cookie = page.cookies[f"{'__Secure-' if scheme == 'https' else ''}starphleet_session"]
    assert (cookie["httpOnly"], cookie["secure"]) == (True, scheme == "https")
    assert (cookie["sameSite"], cookie["path"]) == ("Lax", f"/~{name}/")
    other.go(f"{wanted}?{link}")
    other.wait_for(f"{SHOWN}.includes('git@localhost open {name}')", "a way in")


def test_the_ships_pages_are_for_nobody_elses_scripts(pier: Pier) -> None:
    """A page of a service, at a host of its own or below a path of the ship's, does not read the
    dashboard of who is in; it may lead there."""
    page = pier.browser.visitor()
    link = Person(pier.harbour, pier.harbour.key).open("dashboard")
    dashboard = link.partition("?")[0]
    shown = f"location.href == '{dashboard}' && {SHOWN}"
    assert urlsplit(dashboard).hostname == "starphleet.localhost"
    page.go(link)
    page.wait_for(shown, "the dashboard")
    assert page.run("fetch(location.href).then(answer => answer.status)") == 200
    for path, host in {"": "login.localhost", "open/": "localhost"}.items():
        page.go(pier.url("http", path, host))
        page.wait_for("document.readyState == 'complete'", "the service")
        if host == "localhost":
            here = "fetch('/starphleet/dashboard').then(answer => answer.status)"
            assert page.run(here) == 401
        for mode in ("cors", "no-cors"):
            asked = f"fetch('{dashboard}', {{credentials: 'include', mode: '{mode}'}})"
            assert page.run(f"{asked}.then(answer => answer.text(), () => '')") == ""
        page.run(f"location.href = '{dashboard}'")
        page.wait_for(shown, "the dashboard")
