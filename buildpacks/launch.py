"""How the web command of a built app is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from buildpacks.build import VARIABLE

# exec twice: TERM reaches the app itself when the command is a simple one, and the shell that
# runs it (with the rest of its process group, by the runtime) when it is not.
SOURCES = """\
for profile in "$HOME"/.profile.d/*.sh; do
  if [[ -r $profile ]]; then . "$profile"; fi
done
if [[ -r $HOME/.profile ]]; then . "$HOME/.profile"; fi
unset profile
"""


def launch_script(command: str | None, config_vars: Mapping[str, str], *, app: str) -> str:
    """The text of a bash script that starts `command` in the app directory, seen there as `app`;
    for None what its own arguments say.

    Strength: `config_vars` only where the environment has none, then what is in the environment,
    then `.profile.d/*.sh` and `.profile`. It is a file and not an argv because config_vars may be
    secret, and every user can read an argv.
    """
    last = '"$@"' if command is None else f"bash -c -- {quote(command)}"
    weakest = "".join(
        f"[[ -v {name} ]] || export {name}={quote(value)}\n"
        for name, value in sorted(config_vars.items())
        if VARIABLE.fullmatch(name)
    )
    return (
        f"cd -- {quote(app)} || exit 1\nexport HOME={quote(app)}\n{weakest}{SOURCES}exec {last}\n"
    )


def launch_argv(script: str) -> list[str]:
    """The argv that runs the script, which a command there sees at the path `script`."""
    return ["bash", "--", script]


def write_env_dir(directory: Path, env: Mapping[str, str]) -> None:
    """Lay out `env` as a buildpack's ENV_DIR: one file per variable, for its owner alone.

    `directory` must not exist yet. Raises ValueError for a name that is none.
    """
    directory.mkdir(mode=0o700)
    for name, value in env.items():
        if not VARIABLE.fullmatch(name):
            raise ValueError(f"{name[:60]!r} is not the name of a variable")
        file = directory / name
        file.touch(mode=0o600)
        file.write_text(value, encoding="utf-8", errors="surrogateescape")
