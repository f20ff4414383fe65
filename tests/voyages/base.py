"""A headquarters beside a harbour, as a team has one, and the services that it orders."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from attrs import define

from tests.files import lay
from tests.voyages.harbour import App, Harbour, until

PUBLIC = "export SECURITY_MODE=public\n"


@define
class Base:
    """A bare repository `hub`, and a work tree of its branch `main` in which the orders are.

    The code of each service is another branch of it, with a work tree of its own.
    """

    harbour: Harbour
    hub: Path
    tree: App

    @classmethod
    def new(cls, harbour: Harbour, name: str = "hq") -> Base:
        hub = harbour.home / f"{name}.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(hub)], check=True)
        tree = App.new(harbour, harbour.home / name, {"README.md": "ours\n"})
        base = cls(harbour, hub, tree)
        base.publish(tree, "main")
        return base

    def publish(self, app: App, branch: str, *options: str) -> None:
        app.git("push", "-q", *options, str(self.hub), f"HEAD:refs/heads/{branch}")

    def order(self, files: Mapping[str, str]) -> str:
        """Commit and publish files of the headquarters; an executable one begins with `#!`."""
        lay(self.tree.path, files)
        return self.commit()

    def withdraw(self, *names: str) -> str:
        self.tree.git("rm", "-r", "-q", *names)
        return self.commit()

    def commit(self) -> str:
        """The ship writes its entry in `ships/`, so there may be something to pull, and it may be
        quicker once more before what was pulled is pushed."""
        self.tree.commit({})

        def published() -> bool:
            self.tree.git("pull", "-q", "--rebase", str(self.hub), "main")
            pushed = self.tree.git("push", "-q", str(self.hub), "HEAD:main", check=False)
            return pushed.status == 0

        until(published, "the headquarters is published")
        return self.tree.git("rev-parse", "HEAD").text.strip()

    def service(self, branch: str, files: Mapping[str, str] | Path) -> App:
        """The code of a service, published as a branch."""
        app = App.new(self.harbour, self.harbour.home / f"code-{branch}", files)
        self.publish(app, branch)
        return app

    def follow(self) -> None:
        """`starphleet-headquarters PATH`."""
        self.harbour.starphleet("headquarters", f"{self.hub}#main")


def autodeploy(branch: str, *lines: str) -> str:
    """Orders that follow a branch of the headquarters' own repository."""
    return "".join(
        [PUBLIC, *(f"{line}\n" for line in lines), f'autodeploy "$HEADQUARTERS_REMOTE#{branch}"\n']
    )


def path(harbour: Harbour, at: str) -> str:
    """The URL of an ordered service."""
    return f"http://localhost:{harbour.http_port}/{at}"


def says(harbour: Harbour, at: str, text: str) -> bool:
    """An answer that is cut short, as by a service that stops before the next one, says nothing."""
    with suppress(http.client.IncompleteRead):
        return harbour.get(path(harbour, at)).text == text
    return False


def live(harbour: Harbour, at: str) -> bool:
    """Whether the newest deploy of the service at a path says that it is live.

    Only then a new route is there from one answer to the next: nginx is reloaded for it.
    """
    name = quote(f"/{at.strip('/')}", safe="")
    told = harbour.root / "logs" / f"{name}.deploy"
    said = told.read_text() if told.exists() else ""
    return "is live with" in said or "already serves" in said


def wait_for(harbour: Harbour, at: str, text: str) -> None:
    """Until the service at a path answers with `text`, and is live."""
    until(lambda: says(harbour, at, text) and live(harbour, at), f"/{at} says {text!r}")


def status(harbour: Harbour) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(harbour.starphleet("status", "--json").text)
    return found
