"""One ship for all advisories, and what must be true after each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.voyages.advisories.scene import OF_THE_SHIP, canary
from tests.voyages.apps import web
from tests.voyages.harbour import Harbour


@pytest.fixture(scope="package")
def harbour(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """A ship beside a directory that everybody could write to, and nobody may."""
    settings = {"AWS_SECRET_ACCESS_KEY": OF_THE_SHIP}
    with Harbour(tmp_path_factory.mktemp("harbour"), settings) as harbour:
        canary(harbour).mkdir()
        canary(harbour).chmod(0o777)
        harbour.up()
        harbour.app(web("bystander"), "bystander").push("bystander")
        yield harbour


@pytest.fixture(autouse=True)
def nothing_escapes(harbour: Harbour) -> Iterator[None]:
    """After each of them nothing was written where only an escape could write, and who had
    nothing to do with it serves as before."""
    yield
    escaped = list(canary(harbour).iterdir())
    for path in escaped:
        path.unlink()
    assert escaped == []
    assert harbour.get(f"http://bystander.localhost:{harbour.http_port}/").text == "bystander"
