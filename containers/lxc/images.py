"""OCI images as root file systems: fetched by skopeo, put together by umoci."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from containers.interface import ContainerError, Limits
from containers.lxc.kinds import Image, is_loopback, registry
from containers.lxc.worker import BEHIND
from containers.spawn import run

SECONDS = 3600.0
POLICY = Path("/etc/containers/policy.json")


async def pull(
    reactor: Any, image: Image, directory: Path, env: Mapping[str, str], say: Callable[[str], None]
) -> Path:
    """Make the image's root file system below `directory`; answers where, owners not shifted.

    Raises `ContainerError` that names what is not installed, or says what failed.
    """
    missing = [name for name in ("skopeo", "umoci") if not shutil.which(name, path=env.get("PATH"))]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ContainerError(f"{' and '.join(missing)} {verb} not installed")
    layout, bundle = directory / "oci", directory / "bundle"
    await _run(reactor, _copy(image, layout), env)
    say("fetched the image")
    await _run(reactor, ["umoci", "unpack", "--image", f"{layout}:image", str(bundle)], env)
    say("put its layers together")
    return bundle / "rootfs"


def _copy(image: Image, layout: Path) -> list[str]:
    """skopeo's argv. Where the host has no policy of whom to trust, whatever came is taken."""
    plain = ["--src-tls-verify=false"] if is_loopback(registry(image)) else []
    trust = [] if POLICY.exists() else ["--insecure-policy"]
    return ["skopeo", *trust, "copy", "--quiet", *plain, image.reference, f"oci:{layout}:image"]


async def _run(reactor: Any, argv: Sequence[str], env: Mapping[str, str]) -> None:
    done = await run(reactor, [*BEHIND, *argv], env=env, limits=Limits(seconds=SECONDS))
    if not done.exit.ok:
        lines = done.output.decode(errors="replace").strip().splitlines()
        why = done.exit.reason or (lines[-1] if lines else "it was killed")
        raise ContainerError(f"{argv[0]}: {why}")
