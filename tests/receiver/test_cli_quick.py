"""What a person waits for before `starphleet` says anything."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLOW = ("twisted", "cryptography", "jinja2", "asyncio", "dotenv", "boto3", "botocore")
_TELL = """
import sys
from receiver import cli
try:
    cli.main(sys.argv[1:])
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize("words", ["--help", "status", "history", "logs", "stop NAME", "poll"])
def test_a_question_is_quick(words: str) -> None:
    """Nothing is imported, to ask a ship or for help, that takes long and that the ship needs."""
    with tempfile.TemporaryDirectory() as root:
        done = subprocess.run(
            [sys.executable, "-c", _TELL, *words.split()],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "STARPHLEET_ROOT": root},
            capture_output=True,
            text=True,
            check=False,
        )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "receiver" in loaded
    assert not loaded & set(SLOW)
