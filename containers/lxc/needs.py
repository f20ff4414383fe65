"""What a host must have for the LXC runtime."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from containers.calling import call
from containers.lxc import cgroups, nftables
from containers.sandbox import SYSTEM_PATH

TOOLS = {
    "lxc-execute": "lxc", "lxc-attach": "lxc", "mmdebstrap": "mmdebstrap", "nft": "nftables",
    "conntrack": "conntrack", "ip": "iproute2", "nsenter": "util-linux", "mkfs.ext4": "e2fsprogs",
}  # fmt: skip
CONTROLLERS = ("memory", "pids", "cpu", "freezer")
FILE_SYSTEMS = Path("/proc/filesystems")
OVERLAY = "\toverlay\n"
MODPROBE = ("modprobe", "--quiet", "overlay")


def missing() -> list[str]:
    """What this host lacks, each in words for a person; nothing if the runtime can be had."""
    if os.geteuid() != 0:
        return ["a ship that runs as root"]
    lacking = {TOOLS[tool] for tool in TOOLS if shutil.which(tool, path=SYSTEM_PATH) is None}
    found = [f"the package {package}" for package in sorted(lacking)]
    try:
        nftables.library()
    except OSError:
        found.append(f"the library {nftables.LIBRARY}")
    here = cgroups.of_this_host("").controllers
    found += [f"the cgroup controller {name}" for name in CONTROLLERS if name not in here]
    if not _has_overlay():
        found.append("the file system overlay (modprobe overlay)")
    return found


def _has_overlay() -> bool:
    """A distribution's kernel has it as a module, which nothing loaded after a boot."""
    if OVERLAY not in FILE_SYSTEMS.read_text():
        call(MODPROBE, env={"PATH": SYSTEM_PATH})
    return OVERLAY in FILE_SYSTEMS.read_text()
