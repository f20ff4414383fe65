"""From the commands that a file of the headquarters gave to what they mean; nothing is repaired."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import define, evolve, field, frozen

from hooks.errors import Refused, named
from hooks.fronts import front_of, in_devmode
from hooks.standing import UNPUBLISHED, File, Front, Place, Source, StandingOrders
from proxy.grammar import HEADER, HOST, PATH, THE_PROXYS, URL, VALUE
from proxy.protection import Sign
from receiver.headquarters.evaluate import Call, Evaluated
from receiver.headquarters.fitness import Said, fit_front, fit_locations, fit_sign
from receiver.headquarters.jobs import jobs_of
from receiver.headquarters.source import source_of_orders

LONGEST_PATH = 100  # characters of an order's path
_GUARDED_PORTS = (22, 80, 443)
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def check_path(path: str) -> None:
    """`Refused` when the directory `path` ("" the root) cannot be the path of a service."""
    segments = path.split("/") if path else []
    where = f"{path}/orders"
    if path and not PATH.fullmatch(f"/{path}/"):
        where = ascii(where)[1:-1]
        raise Refused(f"{where}: a path of a URL has letters, digits and ._~- between slashes")
    if len(path) > LONGEST_PATH:
        raise Refused(f"{where}: the path is longer than {LONGEST_PATH} characters")
    if any(segment.startswith((".", "-")) for segment in segments):
        raise Refused(f"{where}: a directory whose name begins with '.' or '-' is not served")
    if segments and (segments[0] == "starphleet" or segments[0].startswith("~")):
        raise Refused(f"{where}: /{segments[0]}/ is the ship's own")


def standing(
    path: str,
    evaluated: Evaluated,
    files: Mapping[str, File],
    content: str,
    *,
    headquarters: Source | None,
    devmode: bool | None = None,
) -> StandingOrders | Sign:
    """What the directory `path` orders; `Refused` begins with the file and line.

    A `Sign` when it only leads elsewhere. `files` are the directory's own by their names from
    there, `content` is a digest of them. `headquarters` is where the operator said it is: its own
    address may be followed as well. `devmode` is what the ship itself says of it.
    """
    where = f"{path}/orders" if path else "orders"
    said = _Said(where, headquarters)
    for call in evaluated.calls:
        said.take(call)
    if said.sign is not None:
        return _sign(where, _below(path), said, files)
    if said.source is None and not said.unpublished:
        raise Refused(f"{where}: nothing to deploy: autodeploy URL, or unpublished for jobs alone")
    front, warnings = _front(said, evaluated.environment, files, devmode)
    place = UNPUBLISHED if said.unpublished else Place(_below(path), tuple(said.hosts))
    fit_front(where, path, place, front)
    jobs, not_jobs = jobs_of(path, files)
    return StandingOrders(
        path=path,
        source=said.source,
        environment=evaluated.environment,
        content=content,
        files=files,
        place=place,
        stop_first=said.stop_first,
        jobs=jobs,
        front=front,
        warnings=(*(f"{where}: {text}" for text in warnings), *not_jobs),
    )


def _front(
    said: _Said, environment: Mapping[str, str], files: Mapping[str, File], devmode: bool | None
) -> tuple[Front, tuple[str, ...]]:
    """What is said of the way to it, with warnings; nothing is protected where there is none."""
    front = said.front()
    if said.unpublished:
        return front, ()
    with named(said.where):
        return front_of(environment, files, front, in_devmode(environment, devmode))


def _sign(where: str, path: str, said: _Said, files: Mapping[str, File]) -> Sign:
    """`Refused` when something else is said of it than where it leads."""
    if said.source is not None or said.unpublished or said.hosts or said.front() != Front():
        raise Refused(f"{where}: it leads elsewhere; so nothing else can be said of it")
    own = [name for name in files if name == ".htpasswd" or name.endswith(".acl")]
    if own:
        raise Refused(f"{where}: who may use it is said where it leads; {own[0]} would not count")
    assert said.sign is not None
    return fit_sign(said.led, evolve(said.sign, path=path))


def remote_source(path: str, evaluated: Evaluated, *, headquarters: Source | None) -> Source:
    """What a `remote` file follows: the last `autodeploy` counts, no other command is allowed."""
    where = f"{path}/remote" if path else "remote"
    said = _Said(where, headquarters)
    for call in evaluated.calls:
        if call.name != "autodeploy":
            raise Refused(
                f"{where}:{call.line}: {call.name} is for orders; a remote has autodeploy"
            )
        said.take(call)
    if said.source is None:
        raise Refused(f"{where}: nothing to fetch: autodeploy URL")
    return said.source


def _below(path: str) -> str:
    return f"/{path}/" if path else "/"


@frozen
class _Usage:
    """What words a command takes, for people and as numbers."""

    text: str
    least: int
    most: int | None

    def fits(self, words: Sequence[str]) -> bool:
        return self.least <= len(words) and (self.most is None or len(words) <= self.most)


USAGES = {
    "autodeploy": _Usage("URL[#REF]", 1, 1),
    "expose": _Usage("PORT", 1, 1),
    "unpublished": _Usage("(no words)", 0, 0),
    "stop_before_autodeploy": _Usage("(no words)", 0, 0),
    "beta": _Usage("GROUP PATH", 2, 2),
    "publish": _Usage("PATH", 1, 1),
    "redirect": _Usage("HOST URL", 2, 2),
    "redirect_to": _Usage("HOST URL", 2, 2),
    "redirect_to_service": _Usage("PATH|URL", 1, 1),
    "proxy_for": _Usage("HOST…", 1, None),
    "server_names": _Usage("default HOST…", 2, None),
    "add_header": _Usage("NAME VALUE…", 2, None),
    "add_response_header": _Usage("NAME VALUE…", 2, None),
    "enable_cache_endpoint": _Usage("(no words)", 0, 0),
    "log_to_stderr": _Usage("(no words)", 0, 0),
    "nginx_location_configs": _Usage("TEXT…", 1, None),
}


@define
class _Said:
    """What the commands of one file said so far."""

    where: str
    headquarters: Source | None
    source: Source | None = None
    unpublished: bool = False
    stop_first: bool = False
    hosts: list[str] = field(factory=list)
    exposed: list[int] = field(factory=list)
    betas: list[tuple[str, str]] = field(factory=list)
    redirects: list[tuple[str, str]] = field(factory=list)
    sign: Sign | None = None
    led: str = ""
    request_headers: list[tuple[str, str]] = field(factory=list)
    response_headers: list[tuple[str, str]] = field(factory=list)
    cached: bool = False
    to_stderr: bool = False
    locations: list[Said] = field(factory=list)

    def take(self, call: Call) -> None:
        """`Refused` when the words are not what the command takes."""
        at = f"{self.where}:{call.line}"
        usage = USAGES.get(call.name)
        if usage is None:
            raise Refused(f"{at}: there is no such command")
        if not usage.fits(call.words):
            raise Refused(f"{at}: {call.name} {usage.text}")
        getattr(self, f"_{call.name}")(at, *call.words)

    def front(self) -> Front:
        return Front(
            exposed=tuple(self.exposed),
            redirects=tuple(self.redirects),
            request_headers=tuple(self.request_headers),
            response_headers=tuple(self.response_headers),
            cached=self.cached,
            locations=fit_locations(self.locations),
            betas=tuple(self.betas),
            to_stderr=self.to_stderr,
        )

    def _autodeploy(self, at: str, url: str) -> None:
        self.source = source_of_orders(url, at, headquarters=self.headquarters)

    def _unpublished(self, at: str) -> None:
        self.unpublished = True

    def _stop_before_autodeploy(self, at: str) -> None:
        self.stop_first = True

    def _expose(self, at: str, port: str) -> None:
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            raise Refused(f"{at}: {ascii(port)[:40]} is not a port, 1 to 65535")
        if int(port) in _GUARDED_PORTS or not _PORT.fullmatch(port):
            raise Refused(f"{at}: port {port} is the ship's own")
        self.exposed.append(int(port))

    def _beta(self, at: str, group: str, path: str) -> None:
        self.betas.append((_matching(at, _GROUP, group, "the name of a group"), _path(at, path)))

    def _publish(self, at: str, path: str) -> None:
        self._lead(at, Sign("", service=_service(_path(at, path))))

    def _redirect_to_service(self, at: str, target: str) -> None:
        url = target if URL.fullmatch(target) else _path(at, target)
        self._lead(at, Sign("", url=url))

    def _lead(self, at: str, sign: Sign) -> None:
        if self.sign is not None:
            raise Refused(f"{at}: it leads elsewhere already")
        self.sign, self.led = sign, at

    def _redirect(self, at: str, host: str, target: str) -> None:
        self.redirects.append((_host(at, host), _matching(at, URL, target, "an http URL")))

    _redirect_to = _redirect

    def _proxy_for(self, at: str, *hosts: str) -> None:
        for host in hosts:
            if (named := _host(at, host)) not in self.hosts:
                self.hosts.append(named)

    def _server_names(self, at: str, template: str, *hosts: str) -> None:
        if template != "default":
            raise Refused(f"{at}: there is no template but default")
        self._proxy_for(at, *hosts)

    def _add_header(self, at: str, name: str, *value: str) -> None:
        self.request_headers.append(_header(at, name, value))

    def _add_response_header(self, at: str, name: str, *value: str) -> None:
        self.response_headers.append(_header(at, name, value))

    def _enable_cache_endpoint(self, at: str) -> None:
        self.cached = True

    def _log_to_stderr(self, at: str) -> None:
        self.to_stderr = True

    def _nginx_location_configs(self, at: str, *text: str) -> None:
        self.locations.append(Said(at, " ".join(text)))


def _matching(at: str, grammar: re.Pattern[str], text: str, what: str) -> str:
    if not grammar.fullmatch(text):
        raise Refused(f"{at}: {ascii(text)[:80]} is not {what}")
    return text


def _host(at: str, text: str) -> str:
    return _matching(at, HOST, text.lower(), "a host name")


def _path(at: str, text: str) -> str:
    """`a/b`, `/a/b` and `/a/b/` alike as "/a/b/"."""
    inner = text.strip("/")
    return _matching(at, PATH, f"/{inner}/" if inner else "/", "a path of a service")


def _service(path: str) -> str:
    """The service whose orders stand in the directory that answers at `path`."""
    return path.rstrip("/") or "/"


def _header(at: str, name: str, value: Sequence[str]) -> tuple[str, str]:
    _matching(at, HEADER, name, "the name of a header")
    if THE_PROXYS.fullmatch(name):
        raise Refused(f"{at}: the header {name} is set by the proxy")
    return name, _matching(at, VALUE, " ".join(value), "the value of a header")
