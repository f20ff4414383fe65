"""What an operator sets, each kind of value read by its own grammar. Where it is set is not known
here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from hooks.errors import Refused
from hooks.limits import read_share, read_size
from hooks.settings import MB
from proxy.proxies import networks
from proxy.routes import InvalidRoute

_NUMBER = re.compile(r"[0-9]{1,20}")
_DOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
)
_ADDRESS = re.compile(r"[0-9.]+|\[?[0-9a-f:]+\]?")
_TOKEN = re.compile(r"[!-~]{16,512}")
_MAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,253}")


@frozen
class Variables:
    """Values by their names. Each method reads one: where it is not set the `default` counts, and
    `Refused` names the one that is not right."""

    values: Mapping[str, str] = field(repr=False)

    def text(self, name: str, default: str) -> str:
        return self.values.get(name, default)

    def count(self, name: str, default: int, *, least: int = 1, most: int = 10**6) -> int:
        text = self.text(name, str(default))
        if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
            raise Refused(f"{name}: {ascii(text)[:40]} is not a number from {least} to {most}")
        return int(text)

    def truth(self, name: str) -> bool:
        return self.one_of(name, ("true", "false")) == "true"

    def mail(self, name: str) -> str:
        """An address for mail, or "" when nothing is said."""
        text = self.text(name, "")
        if text and not _MAIL.fullmatch(text):
            raise Refused(f"{name}: {ascii(text)[:60]} is not an e-mail address")
        return text

    def port(self, name: str, default: int) -> int:
        text = self.text(name, str(default))
        if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= 65535:
            raise Refused(f"{name}: {ascii(text)[:40]} is not a port, 1 to 65535")
        return int(text)

    def port_or_none(self, name: str, default: int) -> int | None:
        """`None` where it says 0."""
        return None if self.text(name, str(default)) == "0" else self.port(name, default)

    def networks(self, name: str) -> tuple[str, ...]:
        """Addresses and networks, apart by spaces or commas; none when nothing is said."""
        try:
            return networks(self.text(name, ""))
        except InvalidRoute as error:
            raise Refused(f"{name}: {error}") from None

    def ports(self, name: str, default: range) -> range:
        text = self.text(name, f"{default.start}-{default.stop - 1}")
        match = re.fullmatch(r"([0-9]{4,5})-([0-9]{4,5})", text)
        if match is None or not 1024 <= int(match[1]) <= int(match[2]) <= 65535:
            raise Refused(f"{name}: {ascii(text)[:40]} is not a range of ports such as 20000-27999")
        return range(int(match[1]), int(match[2]) + 1)

    def seconds_or_none(self, name: str) -> float | None:
        """`None` when nothing is said."""
        return float(self.count(name, 1)) if self.text(name, "") else None

    def size(self, name: str, default: int) -> int:
        return read_size(self.text(name, f"{default // MB}M"), name)

    def size_or_none(self, name: str) -> int | None:
        return read_size(self.text(name, ""), name) if self.text(name, "") else None

    def share(self, name: str) -> float | None:
        return read_share(self.text(name, ""), name) if self.text(name, "") else None

    def one_of(self, name: str, words: tuple[str, ...]) -> str:
        """One of `words`, or "" when nothing is said."""
        text = self.text(name, "")
        if text and text not in words:
            raise Refused(f"{name}: {ascii(text)[:40]} is not one of {', '.join(words)}")
        return text

    def file(self, name: str) -> Path | None:
        """A path, of which `~` is the home directory."""
        text = self.text(name, "")
        return Path(text).expanduser().absolute() if text else None

    def directory(self, name: str, default: Path) -> Path:
        """A path from the root, of which `~` is the home directory."""
        path = Path(self.text(name, str(default))).expanduser()
        if not path.is_absolute() or ".." in path.parts:
            raise Refused(f"{name}: {ascii(str(path))[:60]} is not a path that begins with /")
        return path

    def token(self, name: str) -> str:
        """What somebody shows as a bearer; "" when nothing is said."""
        text = self.text(name, "")
        if text and not _TOKEN.fullmatch(text):
            raise Refused(f"{name}: a token has 16 to 512 letters and digits, and none of a space")
        return text

    def domain(self, name: str, default: str) -> str:
        text = self.text(name, default)
        if text and not _DOMAIN.fullmatch(text) and not _ADDRESS.fullmatch(text):
            raise Refused(f"{name}: {ascii(text)[:60]} is not a host name")
        return text

    def address(self, name: str, default: str) -> str:
        text = self.text(name, default)
        if not _ADDRESS.fullmatch(text):
            raise Refused(f"{name}: {ascii(text)[:60]} is not an IP address")
        return text
