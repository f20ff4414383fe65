"""The static pack with the distribution's nginx, and the null pack."""

from __future__ import annotations

import json
import uuid

from tests.buildpacks.place import Place, Sandbox, Service
from tests.buildpacks.scene import Scene


class StaticSites(Scene):
    async def served(self, place: Place) -> Service:
        return self.started(place, await self.built(place))

    async def test_site(self) -> None:
        """Pages, clean URLs, routes, headers and the site's own 404 page are served."""
        service = await self.served(self.place("static/site"))
        self.assertIn("static at sea", await service.get("/"))
        about = await service.get("/about")
        self.assertIn("<h1>about</h1>", about)
        self.assertIn("X-Wind: north; 7", about)
        self.assertIn("static at sea", await service.get("/app/deep/link"))
        missing = await service.get("/nowhere")
        self.assertIn("404 Not Found", missing)
        self.assertIn("lost at sea", missing)
        self.assertIn("404 Not Found", await service.get("/assets/"))

    async def test_in_a_sandbox(self) -> None:
        """The same holds behind bubblewrap, where nothing but the system and the app is seen."""
        service = await self.served(self.place("static/site", kind=Sandbox))
        self.assertIn("static at sea", await service.get("/"))

    async def test_caching(self) -> None:
        """A page is revalidated by its ETag, a file named by a hash never; text is gzipped."""
        service = await self.served(self.place("static/site"))
        page = await service.get("/")
        self.assertIn("Cache-Control: no-cache", page)
        etag = next(line for line in page.split("\n") if line.startswith("ETag: "))[6:]
        self.assertIn("304 Not Modified", await service.get("/", f"If-None-Match: {etag}"))
        plain = await service.get("/assets/plain.css", "Accept-Encoding: gzip")
        self.assertIn("Content-Encoding: gzip", plain)
        self.assertIn("Cache-Control: no-cache", plain)
        self.assertIn("immutable", await service.get("/assets/site.3f9a1c2e.css"))

    async def test_secrets_stay(self) -> None:
        """Dotfiles, what describes the app, and anything outside the site are not served."""
        place = self.place("static/site")
        for name in (".env", ".git/config", "Procfile.bak", "Procfile", ".well-known/security.txt"):
            (place.files / name).parent.mkdir(exist_ok=True)
            (place.files / name).write_text("web: bash .built/serve\n")
        service = await self.served(place)
        hidden = ("/.env", "/.git/config", "/.built/nginx.conf", "/.profile.d/", "/Procfile")
        for path in (*hidden, "/static.json", "/assets/../.env", "/%2e%65nv", "/assets/..%2f.env"):
            self.assertIn("404 Not Found", await service.get(path), path)
        for path in ("/../../etc/passwd", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd"):
            self.assertRegex(await service.get(path), "^HTTP/1.1 40[04] ", path)
        self.assertIn("200 OK", await service.get("/.well-known/security.txt"))

    async def test_folders(self) -> None:
        """A directory is asked for again with its slash, below the path where the site is mounted;
        a page of the same name goes before it, and a hidden one is not there."""
        place = self.place("static/site")
        for name in ("docs/index.html", "about/index.html", "two words/index.html", ".git/x"):
            (place.files / name).parent.mkdir(exist_ok=True)
            (place.files / name).write_text(f"this is {name}")
        service = await self.served(place)
        mounted = "X-Forwarded-Prefix: /a/b"
        self.assertIn("Location: /a/b/docs/?x=1\n", await service.get("/docs?x=1", mounted))
        self.assertIn("Location: /docs/\n", await service.get("/docs"))
        self.assertIn("Location: /a/b/two%20words/\n", await service.get("/two%20words", mounted))
        self.assertIn("this is docs/index.html", await service.get("/docs/", mounted))
        self.assertIn("<h1>about</h1>", await service.get("/about", mounted))
        for path in ("/.git", "/%2egit"):
            self.assertIn("404 Not Found", await service.get(path, mounted), path)

    async def test_staticfile(self) -> None:
        """A Staticfile names the directory, and pushstate makes a one-page app of it."""
        place = self.place()
        (place.files / "dist").mkdir()
        (place.files / "dist/index.html").write_text("one page at sea")
        (place.files / "secret.txt").write_text("not served")
        (place.files / "Staticfile").write_text("# where\nroot: dist/\npushstate: enabled\n")
        service = await self.served(place)
        self.assertIn("one page at sea", await service.get("/some/where"))
        self.assertIn("one page at sea", await service.get("/secret.txt"))

    async def test_term(self) -> None:
        """TERM ends the server by itself, with status 0."""
        service = await self.served(self.place("static/site"))
        await service.get()
        self.assertEqual((await service.stop()).status, 0)


class StaticRefusals(Scene):
    async def refused(self, words: str, settings: object) -> None:
        place = self.place(name=uuid.uuid4().hex)
        (place.files / "static.json").write_text(json.dumps(settings))
        (place.files / "out").symlink_to("/etc")
        self.assertIn(words, await self.refusal(place), settings)

    async def test_root(self) -> None:
        """A root outside the app, by name or by symlink, is refused."""
        for root in ("../x", "/etc", "a/../../b", "a;b", 'a"b', "$document_root", "a\nb", ".git"):
            await self.refused("is not a directory inside the app", {"root": root})
        await self.refused("leads out of the app", {"root": "out"})
        await self.refused("is not there", {"root": "dist"})
        await self.refused("must be the name of a directory", {"root": 7})

    async def test_configuration(self) -> None:
        """Nothing that nginx would read as its own words comes from static.json."""
        values = ('x"; return 200 "', "$host", "a\r\nb", "back\\slash")
        for value in values:
            await self.refused("is not plain text", {"headers": {"/**": {"X-A": value}}})
        await self.refused("is not a header to set", {"headers": {"/**": {"X-A always; #": "v"}}})
        for pattern in ("**", '/" {', "/a$b", "/a b", "/{}", "/;"):
            await self.refused("is not a path pattern", {"headers": {pattern: {"X-A": "v"}}})
            await self.refused("is not a path pattern", {"routes": {pattern: "index.html"}})
        await self.refused("is not the name of a file", {"routes": {"/**": "index.html; x"}})
        await self.refused("is not the name of a file", {"error_page": "/a b"})
        await self.refused("static.json is not an object", [])


class NullApps(Scene):
    async def test_shell(self) -> None:
        """A Procfile of plain shell is run as it is."""
        place = self.place("null/shell")
        built = await self.built(place)
        self.assertEqual(built.pack, "null")
        self.assertIn("shell at sea", await self.started(place, built).get("/hello.txt"))

    async def test_shell_in_a_sandbox(self) -> None:
        """The same holds behind bubblewrap."""
        place = self.place("null/shell", kind=Sandbox)
        built = await self.built(place)
        self.assertIn("shell at sea", await self.started(place, built).get("/hello.txt"))
