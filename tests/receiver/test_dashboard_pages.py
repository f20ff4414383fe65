"""The dashboard's pages as they are: over HTTP, in a browser, and to who does not see them."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import IO

import psutil
import pytest
from attrs import frozen

from receiver.web.states import TONES
from tests import EVERYTHING
from tests.receiver.dashboard_scene import HOSTILE
from tests.voyages.browser import Browser, Page

ROOT = Path(__file__).parent.parent.parent
AXE = ROOT / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
BASE = "/starphleet/dashboard"
ANN = {"X-Starphleet-Owner": "ann"}
SERVICES, RELEASES = 500, 10_000
SHOWN_AS = [("light", 1280), ("dark", 360)]
if EVERYTHING:
    SHOWN_AS += [("light", 360), ("dark", 1280)]
QUICK = 0.2  # seconds of a processor, whoever else is busy
PAGES = {
    "overview": "",
    "filtered": "?state=trouble&sort=-since",
    "nothing found": "?q=nothing-is-called-so",
    "service": "/service?name=/shop",
    "service that is down": "/service?name=/newsletter",
    "deploys": "/deploys",
    "logs": "/logs",
    "log of one": "/logs?service=/shop&q=basket",
    "nothing": "/service?name=/none",
}
CHECKED = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
VIOLATIONS = f"""
axe.run({{runOnly: {CHECKED}}}).then(found => found.violations.map(each => each.id + ': ' +
    each.nodes.map(node => node.html + ' ' + node.failureSummary).join(' | ')))"""


@frozen
class Shown:
    """A dashboard in a process of its own; `tell` makes something happen there."""

    port: int
    stdin: IO[str]
    process: psutil.Process

    def url(self, path: str) -> str:
        return f"http://localhost:{self.port}{BASE}{path}"

    def tell(self, line: str) -> None:
        self.stdin.write(f"{line}\n")
        self.stdin.flush()

    def get(self, path: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, BASE + path, headers={**ANN, "Accept": "text/html"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.getheaders())
        finally:
            connection.close()


@contextmanager
def shown(directory: Path, *arguments: object) -> Iterator[Shown]:
    argv = [sys.executable, "-m", "tests.receiver.dashboard_scene", str(directory / "s")]
    with subprocess.Popen(
        [*argv, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield Shown(port, process.stdin, psutil.Process(process.pid))
        finally:
            process.stdin.close()


@pytest.fixture(scope="module")
def ship(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Services in every state, and many more."""
    with shown(tmp_path_factory.mktemp("ship"), SERVICES, RELEASES) as ship:
        yield ship


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Services in every state and no more: what a browser looks through takes its time."""
    with shown(tmp_path_factory.mktemp("few"), 0, 60) as ship:
        yield ship


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """Without the pages of earlier tests, which are loaded anew again and again."""
    yield chromium
    chromium.see_off()


def open_page(browser: Browser, url: str, theme: str = "light", width: int = 1280) -> Page:
    page = browser.visitor()
    page.tell("Network.enable")
    page.tell("Network.setExtraHTTPHeaders", headers=ANN)
    page.tell(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=740, deviceScaleFactor=1, mobile=width < 600,
    )  # fmt: skip
    scheme = {"name": "prefers-color-scheme", "value": theme}
    page.tell("Emulation.setEmulatedMedia", features=[scheme])
    go(page, url)
    return page


def go(page: Page, url: str) -> None:
    page.go(url)
    ready = f"location.href == {url!r} && document.readyState == 'complete' && !!document.body"
    page.wait_for(ready, f"{url} is loaded")


def deploying(ship: Shown) -> str:
    """The path of a deploy that is under way."""
    found = re.search(rf'href="{BASE}(/deploy\?[^"]+)"', ship.get("/deploys")[1])
    assert found is not None
    return found[1].replace("&amp;", "&")


@pytest.mark.parametrize(("theme", "width"), SHOWN_AS)
def test_axe_finds_no_violation(few: Shown, browser: Browser, theme: str, width: int) -> None:
    """Not on any page, in either theme, on a desk or a phone, where nothing is wider than it."""
    assert AXE.is_file(), "axe-core is not there: make .axe"
    page, axe = open_page(browser, "about:blank", theme, width), AXE.read_text()
    for name, path in {**PAGES, "deploy": deploying(few)}.items():
        go(page, few.url(path))
        page.run(axe)
        assert page.run(VIOLATIONS) == [], name
        assert page.run("document.documentElement.scrollWidth") <= width, name


def test_every_state_is_seen(ship: Shown) -> None:
    """Each that a service can have, and each leads to the services that are so."""
    first = ship.get("")[1]
    seen = set(re.findall(r'class="pill \w+">([^<]+)', first))
    assert seen >= set(TONES), set(TONES) - seen
    for word in TONES:
        only = re.findall(
            r'<td role="cell" class="state"><span class="pill \w+">([^<]+)',
            ship.get(f"?state={word.replace(' ', '+')}")[1],
        )
        assert set(only) == {word}


def test_many_services_and_releases_stay_quick(ship: Shown) -> None:
    """500 services, 10,000 releases: the first page and the last are there at once, and a page has
    no more than its rows."""
    for path, rows in (
        ("", 100), ("?page=6&sort=service", 15), ("?q=service-4&sort=-author", 100),
        ("/service?name=/shop", 50), ("/service?name=/shop&page=201", 1),
        ("/deploys?page=100", 50), ("/deploys?outcome=failed", 50),
    ):  # fmt: skip
        took = []
        for _ in range(3):
            began = sum(ship.process.cpu_times()[:2])
            status, text, _ = ship.get(path)
            took.append(sum(ship.process.cpu_times()[:2]) - began)
        assert (status, text.count('<td role="cell" class="state">')) == (200, rows), path
        assert min(took) < QUICK, (path, took)


def test_nothing_needs_a_script(ship: Shown) -> None:
    """What a page shows is in its HTML, it asks to be loaded anew unless told not to, and nothing
    in it is a style or a script that the policy would forbid."""
    for path in {**PAGES, "deploy": deploying(ship)}.values():
        status, text, headers = ship.get(path)
        assert status == (404 if "none" in path else 200)
        assert not re.search(r"<style|\sstyle=|<script(?! src)|\son\w+=|javascript:", text)
        assert headers["Cache-Control"] == "no-store"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    overview, one = ship.get("")[1], ship.get("/service?name=/shop")[1]
    assert '<noscript><meta http-equiv="refresh" content="15">' in overview
    assert "http-equiv" not in ship.get("?still=1")[1]
    assert ship.get("?q=old-campaign")[1].count("Update dependencies") == 1
    for text in ("ship.example.org", "CPU over the last day", "autodeploi", "Mary Jackson"):
        assert text in overview
    for text in ("GET /basket/29 200", "nightly", "Grace Hopper", "new commit", "build 1.50 s"):
        assert text in one, text
    filtered = ship.get("/logs?q=basket/2+29")[1]
    assert "GET /basket/29 200" in filtered
    assert "GET /basket/28 200" not in filtered


class Tags(HTMLParser):
    """Names and attributes of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_hostile_text_stays_text(tmp_path: Path, browser: Browser) -> None:
    """Names, authors, subjects, reasons, jobs, log lines and output that are HTML and escape
    sequences are shown as what they are, and do nothing."""
    with shown(tmp_path, 0, 20, "hostile") as ship:
        page = open_page(browser, ship.url(""))
        paths = {**PAGES, "deploy": deploying(ship)}
        paths["found"] = "?q=%3Cimg%20src%3Dx%3E%22%27&state=%22%3E%3Cimg%3E&sort=%22%3E&page=%22"
        for name, path in paths.items():
            text = ship.get(path)[1]
            assert "&lt;img src=x" in text or name == "nothing", name
            assert "\x1b" not in text
            tags = Tags(text).found
            assert "img" not in {tag for tag, _ in tags}, name
            assert not [each for _, each in tags if any(key.startswith("on") for key in each)]
            go(page, ship.url(path))
            assert page.run("document.images.length") == 0
            assert page.run("document.title == 'taken' || !!window.taken") is False
        ship.tell(f"log {HOSTILE} came late")
        go(page, ship.url("/logs?service=/shop"))
        page.wait_for("document.body.innerText.includes('came late')", "the line is followed")
        assert page.run("document.images.length") == 0


def test_the_log_is_followed_and_filtered(ship: Shown, browser: Browser) -> None:
    """A line is there as soon as it is written, once; the filter hides what it does not mean, of
    the past and of what comes; and one may stop."""
    page = open_page(browser, ship.url("/service?name=/shop"))
    page.wait_for("document.querySelectorAll('.log li').length >= 30", "the past")
    ship.tell("log ahoy 1")
    page.wait_for("document.querySelector('.log').innerText.includes('ahoy 1')", "a new line")
    assert page.run("[...document.querySelectorAll('.log li')].filter("
                    "each => each.innerText.includes('basket/29')).length") == 1  # fmt: skip
    visible = "[...document.querySelectorAll('.log li:not([hidden])')].map(each => each.innerText)"
    page.run("const box = document.getElementById('log-q'); box.value = 'AHOY';"
             "box.dispatchEvent(new Event('input'))")  # fmt: skip
    ship.tell("log something else")
    ship.tell("log ahoy 2")
    page.wait_for(f"{visible}.some(each => each.includes('ahoy 2'))", "a line that is meant")
    assert len(page.run(visible)) == 2
    page.run("document.querySelector('.follow').click()")
    ship.tell("log ahoy 3")
    other = open_page(browser, ship.url("/logs?service=/shop"))
    other.wait_for("document.body.innerText.includes('ahoy 3')", "another reader has it")
    assert len(page.run(visible)) == 2
    assert page.run("document.querySelector('.follow').getAttribute('aria-pressed')") == "false"


def test_a_deploy_is_seen_as_it_speaks(ship: Shown, browser: Browser) -> None:
    """Its output grows on the page, which stays where it is: what has the focus keeps it."""
    page = open_page(browser, ship.url(deploying(ship)))
    page.run("document.querySelector('#deploy .crumb a').focus()")
    ship.tell("say -----> Half way there")
    page.wait_for("document.getElementById('said').innerText.includes('Half way')", "its output")
    assert page.run("document.activeElement.getAttribute('href')") == f"{BASE}/deploys"
    assert page.run("performance.getEntriesByType('navigation').length") == 1


def test_services_are_found_while_typing(ship: Shown, browser: Browser) -> None:
    """The list follows the words, the cursor stays, and the address says what is shown."""
    page = open_page(browser, ship.url(""))
    page.run("document.getElementById('q').focus()")
    for char in "fleet e-042":
        page.tell("Input.insertText", text=char)
    names = (
        "[...document.querySelectorAll('.services .name > a:first-child')].map(e => e.innerText)"
    )
    page.wait_for(f"{names}.join() == '/fleet/service-042'", "the one that is meant")
    assert page.run("document.activeElement.id") == "q"
    assert page.run("location.search") == "?q=fleet+e-042"
    page.tell("Page.reload")
    page.wait_for(f"{names}.join() == '/fleet/service-042'", "the same after a reload")


def test_keys_alone_are_enough(ship: Shown, browser: Browser) -> None:
    """The first stop skips to the content, and what has the focus can be seen."""
    page = open_page(browser, ship.url(""))
    press = partial(page.tell, "Input.dispatchKeyEvent", windowsVirtualKeyCode=9, key="Tab")
    press(type="keyDown")
    assert page.run("document.activeElement.innerText") == "Skip to the content"
    assert page.run("document.activeElement.getBoundingClientRect().top >= 0")
    for _ in range(3):
        press(type="keyDown")
        style = "getComputedStyle(document.activeElement)"
        assert page.run(f"{style}.outlineStyle") == "solid"
        assert page.run(f"parseFloat({style}.outlineWidth)") >= 2


def test_who_is_out_is_told(ship: Shown, browser: Browser) -> None:
    """A page whose session ended says so in words that are read out, and shows what it had."""
    page = open_page(browser, ship.url(""))
    page.wait_for("document.querySelectorAll('.services tbody tr').length == 100", "services")
    page.tell("Network.setExtraHTTPHeaders", headers={})
    said = "document.querySelector('#lost[role=status]').innerText"
    page.wait_for(f"{said} == 'You are not logged in any more.'", "it is said")
    assert page.run("document.querySelectorAll('.services tbody tr').length") == 100


def test_files_are_kept_by_browsers(ship: Shown) -> None:
    """Under the name with its digest that pages give; any other name is asked for each time. What
    is not there is not."""
    text = ship.get("")[1]
    names = re.findall(rf'(?:src|href)="{BASE}(/static/[^"]+)"', text)
    assert len(names) == 3
    for name in names:
        status, body, headers = ship.get(name)
        assert (status, bool(body), "immutable" in headers["Cache-Control"]) == (200, True, True)
        assert ship.get(name.partition("?")[0])[2]["Cache-Control"] == "no-store"
        assert ship.get(name, "HEAD")[:2] == (200, "")
    for path in ("/static/", "/static/../pages.py", "/static/none.css", "/service/x", "/what"):
        assert ship.get(path)[0] == 404, path
    assert ship.get("", "HEAD")[:2] == (200, "")
    assert ship.get("/")[0] == 200
    assert ship.get("", "POST")[0] == 405


def test_odd_questions_are_answered(ship: Shown) -> None:
    """A page's number, order or state that is none, bytes that are no text, what is very long."""
    for path in (
        "?page=0", "?page=-3", "?page=99999999999999999999", "?page=%C2%B2", "?sort=%00",
        "?q=%FF%00%0d%0a", f"?q={'a+' * 5000}", "/logs?n=17&service=%00", "/deploys?outcome=what",
        "/service?name=/shop&page=100000", "?q&q&still",
    ):  # fmt: skip
        assert ship.get(path)[0] == 200, path
    assert ship.get("/deploy?service=/shop&release=x")[0] == 404
    other = re.sub("service=[^&]+", "service=../../etc", deploying(ship))
    assert ship.get(other)[0] == 404
    assert ship.get("/deploy")[0] == 404
