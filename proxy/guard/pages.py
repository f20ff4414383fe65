"""What a person or a program reads who is not let in."""

from __future__ import annotations

from html import escape

PAGE = """<!doctype html><html lang=en><meta charset=utf-8>\
<meta name=viewport content="width=device-width"><title>{status} {title}</title>\
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em}}\
</style><h1>{title}</h1><p>{text}</p><p><small>{status}</small></p>
"""


def page(accept: str, status: int, title: str, text: str) -> tuple[str, bytes]:
    """Content type and body, as the client wants them."""
    if "text/html" not in accept:
        return "text/plain; charset=utf-8", f"{status} {title}\n{text}\n".encode()
    filled = PAGE.format(status=status, title=escape(title), text=escape(text))
    return "text/html; charset=utf-8", filled.encode()
