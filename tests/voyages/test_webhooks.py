"""A push event of a git host makes the ship ask now."""

from __future__ import annotations

import hmac
import http.client
import json
from pathlib import Path

from tests.voyages.apps import web
from tests.voyages.base import Base, autodeploy, path, status, wait_for
from tests.voyages.harbour import Harbour, until

SECRET = "between us"


def sent(harbour: Harbour, payload: object, secret: str) -> tuple[int, str]:
    """What a ship answers to a push event signed as GitHub does."""
    body = json.dumps(payload).encode()
    signature = hmac.digest(secret.encode(), body, "sha256").hex()
    to = http.client.HTTPConnection("127.0.0.1", harbour.http_port, timeout=30)
    try:
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-Hub-Signature-256": f"sha256={signature}",
        }
        to.request("POST", "/starphleet/hooks/github", body, headers)
        response = to.getresponse()
        return response.status, response.read().decode()
    finally:
        to.close()


def test_a_push_event_deploys_without_a_pulse(tmp_path: Path) -> None:
    """On a ship that polls every 10 minutes a signed event makes a commit live, one without the
    secret does not; the secret is shown to no service; `/starphleet/` is the ship's own although a
    service has the root; and a killed ship's hooks answer again after a restart."""
    with Harbour(tmp_path / "a", {"STARPHLEET_PULSE": "600"}) as harbour:
        harbour.up()
        base = Base.new(harbour)
        app = base.service("app", web("one"))
        base.order({"app/orders": autodeploy("app"), "orders": autodeploy("app")})
        base.follow()
        wait_for(harbour, "app/", "one")
        event = {"repository": {"clone_url": str(base.hub)}}
        answered, told = sent(harbour, event, SECRET)
        assert (answered, "STARPHLEET_HOOK_SECRET" in told) == (403, True)
        base.order(
            {
                ".starphleet": f"export STARPHLEET_HOOK_SECRET='{SECRET}'\n",
                "app/after_containerize": "#!/bin/sh\nenv > environment\n",
            }
        )
        harbour.starphleet("poll")
        until(lambda: sent(harbour, event, "wrong")[0] == 401, "the secret is known")
        app.commit(web("two"))
        base.publish(app, "app")
        assert sent(harbour, event, "wrong")[0] == 401
        assert sent(harbour, {"repository": {"clone_url": "/elsewhere"}}, SECRET)[0] == 200
        assert harbour.get(path(harbour, "app/")).text == "one"
        assert sent(harbour, event, SECRET) == (202, "asked now: 1\n")
        wait_for(harbour, "app/", "two")
        serving = {one["service"]: one["container"] for one in status(harbour)["services"]}
        container = harbour.root / "containers" / serving["/app"]
        (seen,) = (found.read_text() for found in container.rglob("environment"))
        assert "ORDERS_NAME" in seen
        assert SECRET not in seen
        wait_for(harbour, "", "two")
        assert harbour.get(path(harbour, "starphleet/x")).status == 404
        harbour.kill()
        assert sent(harbour, event, SECRET)[0] == 502
        harbour.up()
        until(lambda: sent(harbour, event, SECRET)[0] == 202, "it is back")
        assert SECRET not in harbour.log
