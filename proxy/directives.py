"""The few directives of nginx that orders may give for a service's own location."""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import frozen

from proxy.grammar import InvalidRoute

LONGEST = 10_000  # characters
ALLOWED = frozenset(
    """
    charset charset_types chunked_transfer_encoding client_body_buffer_size client_body_timeout
    client_max_body_size default_type etag expires gzip gzip_buffers gzip_comp_level gzip_disable
    gzip_http_version gzip_min_length gzip_proxied gzip_types gzip_vary if_modified_since
    keepalive_timeout limit_conn limit_conn_status limit_rate limit_rate_after limit_req
    limit_req_status override_charset postpone_output proxy_buffer_size proxy_buffering
    proxy_buffers proxy_busy_buffers_size proxy_connect_timeout proxy_cookie_domain
    proxy_cookie_flags proxy_cookie_path proxy_force_ranges proxy_limit_rate
    proxy_max_temp_file_size proxy_read_timeout proxy_redirect proxy_request_buffering
    proxy_send_timeout send_timeout sub_filter sub_filter_last_modified sub_filter_once
    sub_filter_types tcp_nodelay
    """.split()  # noqa: SIM905
)
"""None of them leads elsewhere, skips the guard, writes where it likes, or drops our headers."""

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | (?P<end>;) | "(?P<double>[^"\\$]*)" | '(?P<single>[^'\\$]*)'
    | (?P<bare>[^\s;{}"'\\$\#]+)""",
    re.VERBOSE,
)
_PRINTABLE = re.compile(r"[\x20-\x7e\t\r\n]*")
_WORD = re.compile(r"[A-Za-z0-9_./:=*+,@~^|()?!%<>&\[\]-]+")


@frozen
class Directive:
    """One directive; its words are as they are meant, without quotes."""

    name: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """As nginx reads it."""
        return " ".join((self.name, *(_quoted(word) for word in self.words))) + ";"


def _quoted(word: str) -> str:
    if _WORD.fullmatch(word):
        return word
    return f'"{word}"' if '"' not in word else f"'{word}'"


@lru_cache(maxsize=2000)
def directives(text: str) -> tuple[Directive, ...]:
    """The directives in `text`. Raises `InvalidRoute` that names the one that is not allowed."""
    if len(text) > LONGEST or not _PRINTABLE.fullmatch(text):
        raise InvalidRoute(f"nginx's directives are refused: ASCII of at most {LONGEST} characters")
    found, words = [], list[str]()
    for word in _words(text):
        if word is not None:
            words.append(word)
        elif words:
            found.append(_directive(words))
            words = []
    if words:
        raise InvalidRoute(f"nginx's directive {words[0][:80]!r} does not end with a semicolon")
    return tuple(found)


def _words(text: str) -> list[str | None]:
    """The words of `text`, and `None` for each semicolon."""
    words: list[str | None] = []
    at, apart = 0, True
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            shown = text[at : at + 20].split("\n")[0]
            raise InvalidRoute(f"nginx's directives are refused at {shown!r}: no blocks, no $")
        kind = token.lastgroup
        if not apart and kind != "end" and not token[0].isspace():
            raise InvalidRoute(f"nginx's directives are refused at {token[0][:20]!r}: no space")
        if kind in ("bare", "double", "single"):
            words.append(_one_line(token[kind]))
        elif kind == "end":
            words.append(None)
        apart = kind in (None, "end")
        at = token.end()
    return words


def _one_line(word: str) -> str:
    if "\n" in word or "\r" in word:
        raise InvalidRoute("nginx's directives are refused: a word goes over the end of its line")
    return word


def _directive(words: list[str]) -> Directive:
    name, *rest = words
    if name not in ALLOWED:
        raise InvalidRoute(f"nginx's directive {name[:80]!r} is refused: it is not for orders")
    if not rest or (name == "expires" and len(rest) != 1):
        raise InvalidRoute(f"nginx's directive {name} is refused: it takes another number of words")
    return Directive(name, tuple(rest))
