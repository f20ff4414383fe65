"""The tests of Starphleet."""

import os

EVERYTHING = bool(os.environ.get("EVERYTHING"))
"""Whether what takes long and breaks seldom is tested too, and all loads are whole:
`EVERYTHING=1 make test`."""
