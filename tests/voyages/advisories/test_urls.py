"""URLs: those that name a buildpack, and those that the world asks for."""

from __future__ import annotations

import re

import pytest

from tests.voyages.advisories.scene import canary, numbered, refused
from tests.voyages.apps import web
from tests.voyages.harbour import Harbour
from tests.voyages.wire import command

BAD_URLS = [
    r"",
    r"/etc",
    r"../..",
    r"~/x",
    r"$HOME",
    r"C:\x",
    r"file:///etc",
    r"FILE:///etc",
    r"fd::7",
    r"ext::sh -c touch% CANARY",
    r"transport::https://localhost/x",
    r"git://localhost/x",
    r"http://localhost/x.git",
    r"ftp://localhost/x",
    r"--upload-pack=touch CANARY",
    r"-oProxyCommand=touch CANARY",
    r"ssh://-oProxyCommand=touch%20CANARY/x",
    r"ssh://x@-oProxyCommand=y/z",
    r"git@-oProxyCommand=x:y",
    r"git@localhost:-x",
    r"https://",
    r"https:///etc",
    r"https://user:secret-word@localhost/x",
    r"https://localhost/../x",
    r"https://localhost/x y",
    r"https://localhost/x;id",
    r"https://localhost/$(id)",
    r"https://localhost/x#-x",
    r"https://localhost/x#--upload-pack=y",
    r"https://localhost/x#a..b",
    r"",
][1:-1]


@pytest.mark.parametrize("url", BAD_URLS)
def test_cve_2026_33353_buildpack_urls(harbour: Harbour, url: str) -> None:
    """soft-serve's local imports: a buildpack comes by https or ssh from a well-formed URL; a path
    of the ship's, a helper program or an option is refused before git sees it."""
    value = url.replace("CANARY", f"{canary(harbour)}/escaped")
    app = harbour.app({**web(), ".env": f"BUILDPACK_URL='{value}'\n"}, f"pack-{numbered(url)}")
    said = refused(app, "packs", "BUILDPACK_URL")
    assert "Fetching the buildpack" not in said.text
    assert "secret-word" not in said.text
    assert list((harbour.root / "buildpacks").iterdir()) == []


def test_nginx_injection_by_names(harbour: Harbour) -> None:
    """ingress-nginx CVE-2021-25742, CVE-2025-1974: no name gets a character into nginx's
    configuration that means something there, and a name never keeps others from being served."""
    app = harbour.app(web("named"), "nginx")
    for branch in (
        "a;return",
        "a}b",
        "{{7}}",
        "{%x%}",
        "$host",
        "a#b",
        "x'y",
        'x"y',
        "\u2028",
        "\u202e",
        "é",
    ):
        said = app.push("nginx", f"master:refs/heads/{branch}")
        assert harbour.get(said.url).text == "named", branch
        app.commit(web("named"))
    text = (harbour.root / "nginx" / "current" / "nginx.conf").read_text()
    names = set(re.findall(r'set \$sp_service "([^"]+)"', text))
    assert all(re.fullmatch(r"[a-z0-9-]{1,63}", name) for name in names)
    assert not any(mark in text for mark in ("a;return", "\u2028", "\u202e", "é", "{{", "%x"))
    for name in ("a;b", "a}b", "a b", "a$b", "a\nb", "{{7}}", 'a"b'):
        assert command(harbour, f"git-receive-pack '{name}'").status == 1


def test_requests_that_speak_to_the_proxy(harbour: Harbour) -> None:
    """No request from outside reaches nginx's control, another service by a header, or comes back
    as a script in a page of the proxy's own; there is no page to set a ship up (Dokku #2211)."""
    port = harbour.http_port
    base = f"http://localhost:{port}/"
    for path in (
        "",
        "backends",
        "open/x",
        "workers",
        "control/socket",
        "setup",
        "install",
        "admin",
        "api",
        "../x",
        "%2e%2e/x",
    ):
        assert harbour.get(base + path).status in (400, 404), path
    host = "<script>alert(1)</script>"
    page = harbour.get(base, {"Host": host, "Accept": "text/html"})
    assert "<script>" not in page.text
    page = harbour.get(f"{base}%3Cscript%3Ealert(1)%3C/script%3E", {"Accept": "text/html"})
    assert "<script>" not in page.text
    for name in ("X-Accel-Redirect", "X-Starphleet-Service", "X-Forwarded-Host", "X-Original-URL"):
        answer = harbour.get(base, {name: f"bystander.localhost:{port}"})
        assert answer.status == 404
