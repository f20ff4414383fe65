"""The nginx configuration of a static site, on stdout; or a refusal and exit 1.

Argument: the app's directory. Everything that comes from the app is checked against a grammar
before it becomes part of the configuration. `@PORT@` and `@TEMP@` are filled in at launch.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = re.compile(r"[A-Za-z0-9_ -][A-Za-z0-9._ -]*(/[A-Za-z0-9_ -][A-Za-z0-9._ -]*)*\Z")
PATTERN = re.compile(r"/[A-Za-z0-9._~*/-]*\Z")
HEADER = re.compile(r"[A-Za-z0-9-]{1,80}\Z")
VALUE = re.compile(r"[^\"\\$\x00-\x1f\x7f]{1,1000}\Z")
# A name with a hash in it never changes its content: letters and digits, both, eight or more.
FINGERPRINTED = (
    "[.-](?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{8,}[.][a-z0-9]+$",
    "public, max-age=31536000, immutable",
)
KNOWN = {"root", "clean_urls", "routes", "headers", "error_page"}


class Refusal(Exception):
    """Its text is the sentence that the pusher reads."""


def read(app, name):
    try:
        return (app / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{name} cannot be read: {error}") from error


def settings(app):
    """What static.json or else the Staticfile says, as a dict with the keys of static.json."""
    text = read(app, "static.json")
    if text is not None:
        try:
            found = json.loads(text)
        except ValueError as error:
            raise Refusal(f"static.json is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise Refusal("static.json is not an object")
        if "root" not in found and (app / "public_html").is_dir():
            found["root"] = "public_html"
        return found
    return staticfile(read(app, "Staticfile") or "")


def staticfile(text):
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon:
            raise Refusal(f"Staticfile:{number}: {line[:60]!r} is not 'root: DIRECTORY'")
        if name == "pushstate":
            if value in ("enabled", "true"):
                found["routes"] = {"/**": "index.html"}
        else:
            found[name] = value.strip("\"'")
    return found


def document_root(app, given):
    """The directory to serve, relative to the app."""
    if not isinstance(given, str):
        raise Refusal("root must be the name of a directory")
    root = re.sub(r"\A(\./)+|/+\Z", "", given) or "."
    if root != "." and not ROOT.match(root):
        raise Refusal(f"root {given[:80]!r} is not a directory inside the app")
    real, home = (app / root).resolve(), app.resolve()
    if real != home and home not in real.parents:
        raise Refusal(f"root {given[:80]!r} leads out of the app")
    if not real.is_dir():
        raise Refusal(f"root {given[:80]!r} is not there")
    return root


def expression(pattern):
    """'/docs/**' as a regular expression: `**` is anything, `*` anything but a slash."""
    if not (isinstance(pattern, str) and PATTERN.match(pattern)):
        raise Refusal(f"static.json: {str(pattern)[:80]!r} is not a path pattern like /docs/**")
    wild = {"**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*|\*)", pattern)
    return "^" + "".join(wild.get(part) or re.escape(part) for part in parts) + "$"


def page(name, key):
    """A file of the site as a URI path."""
    if not (isinstance(name, str) and re.match(r"/?[A-Za-z0-9_-][A-Za-z0-9._/-]*\Z", name)):
        raise Refusal(f"static.json: {key}: {str(name)[:80]!r} is not the name of a file")
    return "/" + name.lstrip("/")


def table(site, key):
    value = site.get(key, {})
    if not isinstance(value, dict):
        raise Refusal(f"static.json: {key} is not an object")
    return value


def headers(site):
    """{header name as first written: [(expression, value)]}, patterns in the order given."""
    found = {}
    for pattern, values in table(site, "headers").items():
        where = expression(pattern)
        if not isinstance(values, dict):
            raise Refusal(f"static.json: headers: {pattern!r} has no object")
        for name, value in values.items():
            if not HEADER.match(name) or name.lower() in ("content-length", "transfer-encoding"):
                raise Refusal(f"static.json: headers: {name[:80]!r} is not a header to set")
            if not (isinstance(value, str) and VALUE.match(value)):
                raise Refusal(f"static.json: headers: the value of {name} is not plain text")
            known = next((key for key in found if key.lower() == name.lower()), name)
            found.setdefault(known, []).append((where, value))
    return found


def maps(site):
    """(`map` blocks, `add_header` lines). Without a header of its own, a page is revalidated."""
    given = headers(site)
    caching = next((name for name in given if name.lower() == "cache-control"), "Cache-Control")
    given.setdefault(caching, []).append(FINGERPRINTED)
    blocks, lines = [], []
    for number, (name, rules) in enumerate(given.items()):
        default = "no-cache" if name == caching else ""
        body = "".join(f'    "~{where}" "{value}";\n' for where, value in rules)
        blocks.append(f'  map $asked $header{number} {{\n    default "{default}";\n{body}  }}\n')
        lines.append(f"    add_header {name} $header{number} always;\n")
    return "".join(blocks), "".join(lines)


def locations(site):
    """The `location` blocks that find a file for a path."""
    files = "$uri $uri.html $uri/" if site.get("clean_urls") is True else "$uri $uri/"
    given = table(site, "routes").items()
    routes = [(expression(pattern), page(to, "routes")) for pattern, to in given]
    blocks = [f'    location ~ "{at}" {{ try_files {files} {to} =404; }}\n' for at, to in routes]
    return f"{''.join(blocks)}    location / {{ try_files {files} =404; }}\n"


def folders(site):
    """A page goes before the directory of the same name."""
    return '    if (-f "$request_filename.html") { set $folder ""; }\n' * (
        site.get("clean_urls") is True
    )


def error_page(app, root, site):
    name = page(site.get("error_page", "404.html"), "error_page")
    if (app / root / name[1:]).is_file():
        return f"    error_page 403 404 =404 {name};\n"
    return "    error_page 403 =404 @missing;\n    location @missing { return 404; }\n"


def configuration(app):
    """(the configuration, the keys that mean nothing here)."""
    site = settings(app)
    root = document_root(app, site.get("root", "."))
    blocks, lines = maps(site)
    parts = {
        "ROOT": root,
        "MAPS": blocks,
        "HEADERS": lines,
        "LOCATIONS": locations(site),
        "FOLDERS": folders(site),
        "ERROR_PAGE": error_page(app, root, site),
    }
    text = (HERE / "nginx.conf").read_text(encoding="utf-8")
    text = re.sub(
        r"@(ROOT|MAPS|HEADERS|LOCATIONS|FOLDERS|ERROR_PAGE)@\n?", lambda at: parts[at[1]], text
    )
    return text, sorted(set(site) - KNOWN)


def main():
    try:
        text, unknown = configuration(Path(sys.argv[1]))
    except Refusal as refusal:
        print(refusal)
        sys.exit(1)
    print(text)
    if unknown:
        print(f"Not known here, and ignored: {', '.join(unknown)[:200]}", file=sys.stderr)


if __name__ == "__main__":
    main()
