"""Which of the ship's interpreters an app gets: prints `VERSION PATH`, or a refusal and exit 1.

Argument: the app's directory. Any Python from 3.7 on can run it; nothing but its own library.
"""

import os
import re
import sys
from pathlib import Path

ASK = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
CLAUSE = re.compile(r"(~=|===?|!=|<=|>=|<|>|\^)?\s*(\d+(?:\.\d+)*)(\.\*)?\Z")
POETRY = re.compile(
    r"^\[tool\.poetry\.dependencies\]\s*\n(?:(?!\[).*\n)*?python\s*=\s*[\"']([^\"'\n]*)[\"']", re.M
)


class Refusal(Exception):
    """Its text is the sentence that the pusher reads."""


def numbers(text):
    """'3.11' -> (3, 11)"""
    return tuple(int(part) for part in text.split("."))


def padded(version):
    return (*version, 0, 0, 0)[:3]


def begins(version, wanted):
    return version[: len(wanted)] == wanted


def satisfies(version, clause):
    """Whether '3.11.2' keeps one clause such as '>=3.10', '==3.11.*', '~=3.11' or '^3.11'."""
    match = CLAUSE.match(clause.strip())
    if not match:
        raise Refusal(f"pyproject.toml: requires-python has {clause!r}, which is no version range")
    have, wanted, star = numbers(version), numbers(match[2]), match[3]
    operator, limit = match[1] or "==", padded(wanted)
    if operator in ("==", "===", "!="):
        same = begins(have, wanted) if star else have == limit
        return same != (operator == "!=")
    if operator in ("~=", "^"):
        return have >= limit and begins(have, wanted[:-1] if operator == "~=" else wanted[:1])
    answers = {"<": have < limit, "<=": have <= limit, ">": have > limit, ">=": have >= limit}
    return answers[operator]


def keeps(version, spec):
    return all(satisfies(version, clause) for clause in spec.split(",") if clause.strip())


def text_of(path):
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def asked(app):
    """(version such as '3.11' or '', the file that asks for it)."""
    for name in (".python-version", "runtime.txt"):
        lines = (line.split("#")[0].strip() for line in text_of(app / name).splitlines())
        line = next((line for line in lines if line), "")
        match = re.match(r"(?:python-|cpython-)?(3(?:\.\d+){0,2})\Z", line)
        if match:
            return match[1], name
        if line:
            raise Refusal(f"{name} says {line[:40]!r}; write a version like 3.11 or 3.11.2")
    return "", ""


def required(app):
    """`requires-python` of pyproject.toml (or Poetry's `python`), '' if there is none."""
    text = text_of(app / "pyproject.toml")
    match = re.search(r"^requires-python\s*=\s*[\"']([^\"'\n]*)[\"']", text, re.M)
    match = match or POETRY.search(text)
    return match[1] if match else ""


def installed(path):
    """Interpreters in the directories of `path`: this one first, then newest first, one a minor."""
    own, found = sys.version_info[1], {}
    for directory in ["/usr/bin", *path.split(":")]:
        if "/shims" in directory or not Path(directory).is_dir():
            continue
        for file in Path(directory).iterdir():
            match = re.match(r"python3\.(\d+)\Z", file.name)
            if match:
                found.setdefault(int(match[1]), str(file))
    found.setdefault(own, sys.executable)
    return [found[minor] for minor in sorted(found, key=lambda minor: (minor != own, -minor))]


def version_of(path):
    if Path(path).samefile(sys.executable):
        return "{}.{}.{}".format(*sys.version_info)
    import subprocess  # rarely needed, and a third of this script's start

    done = subprocess.run([path, "-ISc", ASK], stdout=subprocess.PIPE, check=False)
    return done.stdout.decode().strip() or "0.0.0"


def choose(app, path):
    """(version, path) of the interpreter for the app."""
    (version, file), spec = asked(app), required(app)
    seen = []
    for program in installed(path):
        have = version_of(program)
        seen.append(have)
        if keeps(have, spec) and begins(numbers(have), numbers(version) if version else ()):
            return have, program
    asks = [f"{file} asks for Python {version}"] if version else []
    asks += [f"pyproject.toml asks for Python {spec}"] if spec else []
    raise Refusal(f"{' and '.join(asks)}; this ship has {', '.join(seen)}")


def main():
    try:
        print(*choose(Path(sys.argv[1]), os.environ.get("PATH", "")))
    except Refusal as refusal:
        print(refusal)
        sys.exit(1)


if __name__ == "__main__":
    main()
