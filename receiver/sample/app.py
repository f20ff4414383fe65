"""The sample that `make demo` pushes: one page, and the time it was committed."""

from pathlib import Path

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    written = Path(__file__).with_name("greeting.txt").read_text()
    return f"<!doctype html><title>Starphleet</title><h1>Ahoy!</h1><p>{written}</p>\n"
