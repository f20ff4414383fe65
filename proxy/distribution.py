"""The nginx that the distribution installed: its program, its Lua module."""

from __future__ import annotations

import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from attrs import frozen

from proxy.routes import ProxyError

Run = Callable[[Sequence[str], float], Awaitable[tuple[int, str]]]
"""argv and a timeout in seconds, to exit status and merged output."""

SYSTEM_PATHS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Where programs are; an ordinary user's own PATH often lacks the sbin of it."""


@frozen
class Distribution:
    """Where nginx is, and where its modules are."""

    nginx: Path
    modules: Path


async def find_distribution(run: Run, search: str) -> Distribution:
    """The nginx on `search` (a PATH), checked to have what it takes.

    Raises `ProxyError` that names the package to install.
    """
    found = shutil.which("nginx", path=search)
    if found is None:
        raise ProxyError("nginx is not installed: apt-get install nginx libnginx-mod-http-lua")
    status, output = await run([found, "-V"], 10.0)
    modules = re.search(r"--modules-path=(\S+)", output)
    if status != 0 or modules is None:
        raise ProxyError(f"{found} -V does not say where its modules are: status {status}")
    directory = Path(modules[1])
    for module in ("ndk_http_module.so", "ngx_http_lua_module.so"):
        if not (directory / module).is_file():
            raise ProxyError(
                f"{found} has no {module} in {directory}: apt-get install libnginx-mod-http-lua"
            )
    return Distribution(Path(found), directory)
