"""Whether nginx takes what this version of the proxy writes; the one that serves is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proxy.distribution import Run, find_distribution
from proxy.engine import Engine, Patience
from proxy.instance import Instance
from proxy.render import generation_files
from proxy.routes import ProxyError
from proxy.structure import Structure


async def tried(prefix: Path, run: Run, search: str, http_port: int) -> None:
    """Lay a configuration down below the empty directory `prefix` and let nginx read it; `search`
    is a PATH. Raises `ProxyError`."""
    found = await find_distribution(run, search)
    instance = Instance(
        prefix, http_port, bind="127.0.0.1", modules=found.modules, workers=1, files=1024
    )
    nothing: Any = None  # no time passes, and nothing is waited for
    engine = Engine(nothing, instance, found.nginx, run, Patience())
    engine.prepare()
    engine.generations.write(1, generation_files(instance, Structure(taken=instance.own), 1))
    if trouble := await engine.test(1):
        raise ProxyError(trouble)
