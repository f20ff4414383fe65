"""The dashboard of a real ship, in a browser that came in by a link."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attrs import frozen

from tests.voyages.apps import web
from tests.voyages.browser import Browser, Page
from tests.voyages.crew import Person
from tests.voyages.harbour import App, Harbour

SLOW = "import time\nfor step in range(80):\n    print('step', step, flush=True); time.sleep(0.1)\n"


TALKS = web()["server.py"].replace(
    "        status =", "        print('asked', self.path, flush=True)\n        status ="
)


@frozen
class View:
    """A ship with a service `atlas`, and a browser that is in."""

    harbour: Harbour
    app: App
    page: Page
    home: str

    def see(self, path: str) -> None:
        at = f"{self.home}{path}"
        self.page.go(at)
        self.page.wait_for(f"location.href == '{at}' && document.readyState == 'complete'", at)

    def until(self, *texts: str) -> None:
        for text in texts:
            self.page.wait_for(f"document.body?.innerText.includes({text!r})", text)


@pytest.fixture(scope="module")
def view(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    with (
        Browser(tmp_path_factory.mktemp("browser")) as browser,
        Harbour(tmp_path_factory.mktemp("harbour")) as harbour,
    ):
        harbour.up()
        app = harbour.app({**web(), "server.py": TALKS})
        app.push("atlas")
        page = browser.visitor()
        size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.tell("Emulation.setDeviceMetricsOverride", **size)
        page.go(Person.new(harbour, "berta", "admiral").open("dashboard"))
        page.wait_for("!!document.querySelector('main')", "the dashboard")
        yield View(harbour, app, page, page.run("location.origin + location.pathname"))


def test_what_serves_is_seen(view: View) -> None:
    """With its commit's author and subject, which git knows, its URL, the host, and who is in."""
    view.see("?q=atlas")
    view.until("atlas", "live", "a change", "Ann", "expires in", "CPU", "berta", "atlas.localhost")
    assert "starphleet_link" not in view.page.run("location.href")
    view.see("/service?name=atlas")
    view.until("a change", "pushed by ann", "build", "web")
    assert view.page.run("document.querySelectorAll('.history tbody tr').length") == 1


def test_a_push_is_seen_from_its_first_line_to_its_last(view: View) -> None:
    """A deploy that is under way says what the pusher reads; when it is over its page says how it
    ended, and what it said is still there."""
    files = {**web(), "slow.py": SLOW, "Procfile": "web: python3 slow.py; exit 3\n"}
    app = view.harbour.app(files, "failing")
    pushing = app.pushing("sketch")
    view.see("/deploys")
    view.page.wait_for(
        "!!document.querySelector('.running .name')", "it is on a page that was open"
    )
    href = view.page.run("document.querySelector('.running .name').getAttribute('href')")
    view.see(href.removeprefix("/starphleet/dashboard"))
    view.until("Starting web", "ended by itself (exit status 3)", "failed")
    pushing.wait()
    view.until("Starting web")
    view.see("?state=trouble")
    view.until("sketch", "down", "exit status 3")
    view.see("/logs?service=sketch&q=starting+web")
    view.until("Starting web")


def test_the_log_comes_through_the_front_door(view: View) -> None:
    """What a service says is on the page a moment later, without a reload."""
    view.see("/service?name=atlas")
    view.harbour.get("http://atlas.localhost/say-ahoy")
    view.until("asked /say-ahoy")


def test_who_leaves_is_out(view: View) -> None:
    """The page of one who left says so; nothing of the ship is shown any more."""
    view.see("")
    view.page.run("document.querySelector('.who a').click()")
    view.page.wait_for("!!document.querySelector('form[method=post] button')", "a way out")
    view.page.run("document.querySelector('form[method=post] button').click()")
    view.page.wait_for("!document.querySelector('form')", "it is out")
    view.page.go(view.home)
    view.until("open dashboard")
    assert "atlas" not in view.page.run("document.body.innerText")
