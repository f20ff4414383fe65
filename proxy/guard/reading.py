"""From settings and files to who may use a service. What is named and not whole is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from proxy.grammar import HOST, IDENTITY
from proxy.guard.names import casefolded, presentable
from proxy.protection import MODES, Jwt, NotProtected, Protection

OPEN = "public: no SECURITY_MODE and no .htpasswd"
HASHES = re.compile(
    r"\$2[aby]\$(0[4-9]|1[0-5])\$[./A-Za-z0-9]{53}"  # bcrypt, of a second or so at most
    r"|\$(apr1|1)\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}"
    r"|\$5\$(rounds=[1-9][0-9]{3,5}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43}"
    r"|\$6\$(rounds=[1-9][0-9]{3,5}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86}"
    r"|\{SHA\}[A-Za-z0-9+/]{27}="
    r"|[./A-Za-z0-9]{13}"  # crypt of old: two characters of salt
)
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
TAKEN = re.compile(
    r"(?i:host|connection|upgrade|content-length|content-type|transfer-encoding|te|trailer|cookie"
    r"|keep-alive|authorization|expect|range|proxy.*|x-forwarded-.*|x-real-ip|x-http"
    r"|x-starphleet-.*|jwt-.*)"
)
ATTRIBUTES = re.compile(
    r"(?i:expires|path|comment|domain|max-age|secure|httponly|version|samesite|partitioned)"
)
"""What a cookie cannot be called."""

PUBLIC_KEY = re.compile(r"\s*(-----BEGIN |---- BEGIN |(ssh|ecdsa|sk)-)")
HMAC = ("HS256", "HS384", "HS512")
SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
BY_KEYS = ("RS256", "ES256", "EdDSA")
SHORTEST_SECRET, GOOD_SECRET = 16, 32  # bytes
_CHARACTERS = re.compile(r"[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]{1,2000}")
_SAFE = re.compile(r"https:|http://(localhost|127\.0\.0\.1|\[::1\])[:/]")
_URL = re.compile(
    r"https?://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,60}\])(:[1-9][0-9]{0,4})?([/?].*)?"
)


def protection_of(
    environment: Mapping[str, str],
    files: Mapping[str, bytes],
    betas: Sequence[tuple[str, str]],
    *,
    devmode: bool,
) -> tuple[Protection, tuple[str, ...]]:
    """What the `environment` and the `files` beside the orders (`.htpasswd`, `*.acl`) ask of
    visitors, and warnings. Raises `NotProtected`, which names the setting.
    """
    mode, warnings = _mode(environment, files)
    jwt, doubts = _jwt(environment) if mode == "jwt" else (None, ())
    forced, unforced = _forced(environment, devmode=devmode)
    protection = Protection(
        mode=mode,
        users=_users(environment, files) if mode == "htpasswd" else {},
        ldap=_ldap(environment) if mode == "ldap" else "",
        jwt=jwt,
        listed=_listed(mode, files),
        betas=tuple(betas),
        header=_header(environment),
        cookie=_cookie(environment, "USER_IDENTITY_COOKIE", "starphleet_user"),
        forced=forced,
    )
    if jwt is not None and jwt.cookie == protection.cookie:
        raise NotProtected("USER_IDENTITY_COOKIE: the cookie of the token has this name")
    return protection, (*warnings, *doubts, *unforced)


def _mode(
    environment: Mapping[str, str], files: Mapping[str, bytes]
) -> tuple[str, tuple[str, ...]]:
    """The mode; where none is named, the one that there are passwords for."""
    mode = environment.get("SECURITY_MODE", "")
    if mode and mode not in MODES:
        raise NotProtected(f"SECURITY_MODE: {ascii(mode)[:40]} is none of {', '.join(MODES)}")
    if mode:
        return mode, ()
    if environment.get("HTPASSWD") or ".htpasswd" in files:
        return "htpasswd", ()
    return "public", (OPEN,)


def _users(environment: Mapping[str, str], files: Mapping[str, bytes]) -> dict[str, str]:
    """Hashes by name; the variable's count more than the file's."""
    text = files.get(".htpasswd", b"").decode("utf-8", "replace")
    users = _lines(text, ".htpasswd") | _lines(environment.get("HTPASSWD", ""), "HTPASSWD")
    if not users:
        raise NotProtected("HTPASSWD: SECURITY_MODE=htpasswd needs it, or a file .htpasswd")
    return users


def _lines(text: str, where: str) -> dict[str, str]:
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        kept, _, _ = rest.partition(":")
        if not presentable(name):
            raise NotProtected(f"{where}: line {number} is not USER:HASH")
        if not HASHES.fullmatch(kept):
            raise NotProtected(
                f"{where}: line {number} has no hash that is known: bcrypt, apr1, crypt or {{SHA}}"
            )
        users[name] = kept
    return users


def _listed(mode: str, files: Mapping[str, bytes]) -> tuple[str, ...] | None:
    """Everybody in the ACL files, a name a line; `None` where there is no such file."""
    lists = {name: data for name, data in files.items() if name.endswith(".acl")}
    if not lists:
        return None
    if mode == "public":
        raise NotProtected(f"{min(lists)}: SECURITY_MODE=public knows nobody who could be listed")
    text = "\n".join(data.decode("utf-8", "replace") for data in lists.values())
    lines = (line.strip() for line in text.splitlines())
    return tuple(sorted({casefolded(line) for line in lines if line and line[0] != "#"}))


def _ldap(environment: Mapping[str, str]) -> str:
    server = environment.get("LDAP_SERVER", "")
    if not server:
        raise NotProtected("LDAP_SERVER: SECURITY_MODE=ldap needs it, a file of ldap_servers/")
    return server


def _jwt(environment: Mapping[str, str]) -> tuple[Jwt, tuple[str, ...]]:
    secret, url = environment.get("JWT_SECRET", ""), environment.get("JWT_JWKS_URL", "")
    if bool(secret) == bool(url):
        raise NotProtected("JWT_SECRET: SECURITY_MODE=jwt needs it, or else JWT_JWKS_URL")
    if secret and len(secret.encode()) < SHORTEST_SECRET:
        raise NotProtected(f"JWT_SECRET: it has to have {SHORTEST_SECRET} bytes, better 32")
    if PUBLIC_KEY.match(secret):
        raise NotProtected("JWT_SECRET: it is a key of two parts, and no secret")
    if url and not (_URL.fullmatch(url) and _CHARACTERS.fullmatch(url)):
        raise NotProtected("JWT_JWKS_URL: it is no http URL")
    if url and not _SAFE.match(url):
        raise NotProtected("JWT_JWKS_URL: keys that count have to come by https")
    jwt = Jwt(
        site=_site(environment.get("JWT_AUTH_SITE", "")),
        secret=secret,
        jwks_url=url,
        algorithms=_algorithms(environment.get("JWT_ALGORITHM", ""), secret),
        cookie=_cookie(environment, "JWT_COOKIE_NAME", "jwt"),
        cookie_domain=_domain(environment.get("JWT_COOKIE_DOMAIN", "")),
        roles=_words(environment.get("JWT_ROLES", "")),
        lifetime=_seconds(environment, 3600, "JWT_EXPIRATION", "JWT_EXPIRATION_IN_SECONDS"),
        oldest=_seconds(environment, 48 * 3600, "JWT_MAX_TOKEN_AGE_IN_SECONDS"),
        audience=environment.get("JWT_AUDIENCE", ""),
        issuer=environment.get("JWT_ISSUER", ""),
    )
    weak = secret and len(secret.encode()) < GOOD_SECRET
    return jwt, ("JWT_SECRET: it is shorter than 32 bytes",) if weak else ()


def _site(site: str) -> str:
    """Where people log in: a URL, or a path on this ship."""
    if not site:
        raise NotProtected("JWT_AUTH_SITE: SECURITY_MODE=jwt needs it, where people log in")
    path = site.startswith("/") and not site.startswith("//")
    if not _CHARACTERS.fullmatch(site) or not (path or _URL.fullmatch(site)):
        raise NotProtected("JWT_AUTH_SITE: it is neither an http URL nor a path")
    return site


def _algorithms(named: str, secret: str) -> tuple[str, ...]:
    """What a token may be signed with: fixed here, whatever the token says."""
    possible = HMAC if secret else SIGNATURES
    asked = _words(named)
    for one in asked:
        if one not in possible:
            shown = ascii(one)[:40]
            raise NotProtected(f"JWT_ALGORITHM: {shown} is none of {', '.join(possible)}")
    return asked or (HMAC[:1] if secret else BY_KEYS)


def _domain(text: str) -> str:
    domain = text.lower().removeprefix(".")
    if domain and not HOST.fullmatch(domain):
        raise NotProtected(f"JWT_COOKIE_DOMAIN: {ascii(text)[:60]} is not a host name")
    return domain


def _seconds(environment: Mapping[str, str], usual: int, *names: str) -> int:
    for name in names:
        text = environment.get(name, "")
        if text and not re.fullmatch(r"[1-9][0-9]{0,8}", text):
            raise NotProtected(f"{name}: {ascii(text)[:40]} is not a number of seconds")
        if text:
            return int(text)
    return usual


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _header(environment: Mapping[str, str]) -> str:
    """nginx takes a header with an underscore for none."""
    name = _name(environment, "USER_IDENTITY_HEADER", "x-identity").lower()
    if TAKEN.fullmatch(name) or not IDENTITY.fullmatch(name):
        raise NotProtected(f"USER_IDENTITY_HEADER: {name} cannot be the header")
    return name


def _cookie(environment: Mapping[str, str], setting: str, usual: str) -> str:
    name = _name(environment, setting, usual)
    if ATTRIBUTES.fullmatch(name):
        raise NotProtected(f"{setting}: {name} cannot be the name")
    return name


def _name(environment: Mapping[str, str], setting: str, usual: str) -> str:
    name = environment.get(setting) or usual
    if not TOKEN.fullmatch(name):
        raise NotProtected(f"{setting}: {ascii(name)[:60]} cannot be the name")
    return name


def _forced(environment: Mapping[str, str], *, devmode: bool) -> tuple[str, tuple[str, ...]]:
    """Who everybody is taken for, on a workstation alone."""
    user = environment.get("DEVMODE_FORCE_AUTH", "")
    if user and not presentable(user):
        raise NotProtected(f"DEVMODE_FORCE_AUTH: {ascii(user)[:60]} is no name")
    if not user or devmode:
        return user, ()
    return "", ("DEVMODE_FORCE_AUTH: it is not in force, this is no workstation",)
