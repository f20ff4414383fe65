"""What a new instance is told: cloud-init's own words, and one script that makes a ship of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import yaml
from attrs import field, frozen

from hooks.errors import Refused

HERE = "/root/starphleet"
MOST = 16384  # bytes that EC2 takes
_METADATA = "169.254.169.254"
_SSH = ("-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=accept-new")

# Containers are kept from it by the hop limit too. What runs as a process of the host is not, and
# what is written here, the private key in it, can be read from there as long as the instance is.
_RULES = f"""\
table inet starphleet_metadata
delete table inet starphleet_metadata
table inet starphleet_metadata {{
  chain output {{
    type filter hook output priority filter;
    ip daddr {_METADATA} meta skuid != 0 reject
  }}
  chain forward {{
    type filter hook forward priority filter;
    ip daddr {_METADATA} reject
  }}
}}
"""
_UNIT = """\
[Unit]
Description=Only root asks the metadata service of EC2
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft --file /etc/starphleet-metadata.nft

[Install]
WantedBy=multi-user.target
"""
_HEAD = f"""\
#!/bin/bash
# Makes a ship of this instance; /var/log/cloud-init-output.log has what it said.
# After a failure, once more: sudo bash {HERE}/board
set -euo pipefail
umask 022
export HOME=/root
"""
_BODY = f"""
board() {{
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || return
  apt-get install -y -qq --no-install-recommends git nftables >/dev/null || return
  systemctl daemon-reload || return
  systemctl enable --quiet --now starphleet-metadata.service || return
  sh webinstall "$remote" --host "$host" "${{options[@]}}"
}}

known() {{
  cloud-init query "ds.meta_data.$1" 2>/dev/null || true
}}

main() {{
  cd {HERE}
  host=$(known public_hostname)
  [ -n "$host" ] || host=$(known public_ipv4)
  [ -n "$host" ] || host=$(hostname)
  # A new instance may be busy with updates of its own, or not reach everything yet.
  for pause in 20 60 180 no; do
    if board; then
      cd / && rm -rf {HERE}
      return 0
    fi
    [ $pause = no ] || sleep $pause
  done
  echo 'No ship was made of this instance.' >&2
  return 1
}}

main
exit
"""


@frozen
class Told:
    """What the instance is to become. `remote` is where Starphleet comes from, `URL[#REF]`; `owner`
    has the public key `key` and is an admiral; `private_key` is a file's name and its text."""

    remote: str
    headquarters: str
    owner: str
    key: str
    webinstall: str = field(repr=False)
    private_key: tuple[str, str] | None = field(default=None, repr=False)


def user_data(told: Told) -> str:
    """All of it, as cloud-config; `Refused` if it is more than an instance can be told."""
    files = [*_files(told)]
    said = {"write_files": files, "runcmd": [["bash", f"{HERE}/board"]]}
    text = f"#cloud-config\n{yaml.safe_dump(said, sort_keys=False)}"
    if len(text.encode()) > MOST:
        raise Refused(f"the keys are too long: an instance is told {MOST} bytes at most")
    return text


def script(told: Told) -> str:
    """What runs as root when the instance has started."""
    options = ["--key", f"{told.owner}={_public(told)}"]
    lines = [
        f"remote={shlex.quote(told.remote)}",
        f"export HEADQUARTERS_URL={shlex.quote(told.headquarters)}",
    ]
    if told.private_key is not None:
        file = _private(told.private_key[0])
        options += ["--private-key", file]
        ssh = (
            f"ssh -i {shlex.quote(file)} -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new"
        )
        lines.append(f"export GIT_SSH_COMMAND={shlex.quote(ssh)}")
    return _HEAD + "\n".join([*lines, f"options=({shlex.join(options)})"]) + "\n" + _BODY


def _public(told: Told) -> str:
    return f"{HERE}/public/{told.owner}.pub"


def _private(name: str) -> str:
    return f"{HERE}/private/{name}"


def _files(told: Told) -> Iterator[dict[str, str]]:
    """As `write_files` wants them; cloud-init makes their directories, and root's is root's."""
    yield _file(f"{HERE}/board", script(told))
    yield _file(f"{HERE}/webinstall", told.webinstall)
    yield _file(_public(told), told.key)
    if told.private_key is not None:
        name, text = told.private_key
        yield _file(_private(name), text)
    yield _file("/etc/starphleet-metadata.nft", _RULES)
    yield _file("/etc/systemd/system/starphleet-metadata.service", _UNIT, "0644")


def _file(path: str, content: str, mode: str = "0600") -> dict[str, str]:
    return {"path": path, "permissions": mode, "owner": "root:root", "content": content}
