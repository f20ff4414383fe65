"""What a ship's nginx needs to start, and who may speak to it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

import psutil
from twisted.trial.unittest import SkipTest

from proxy.routes import InvalidRoute, ProxyError
from tests.proxy.reactor import run, until
from tests.proxy.world import ProxyCase, route

NOBODY = 65534


class StartTests(ProxyCase):
    async def test_control_socket_is_the_ships_own(self) -> None:
        """Nobody but the ship's user can open the control socket, or list the configuration."""
        await self.started()
        socket = (self.prefix / "control" / "socket").stat()
        self.assertEqual(stat.S_IMODE(socket.st_mode), 0o600)
        for name in ("control", "generations", "logs"):
            mode = stat.S_IMODE((self.prefix / name).stat().st_mode)
            self.assertEqual((name, mode), (name, 0o700))

    async def test_control_is_not_on_the_network(self) -> None:
        """The control paths mean nothing on the port that the world sees."""
        await self.started(self.app("hello"))
        for target in ("/backends", "/workers", "/open/hello"):
            self.assertEqual((await self.fetch(target)).status, 404)

    async def test_workers_are_not_root(self) -> None:
        """A ship that is root has workers that are not."""
        await self.started()
        if os.geteuid() != 0:
            raise SkipTest("this ship is not root")

        async def dropped() -> bool:
            return all(psutil.Process(pid).uids().real != 0 for pid in await self.workers())

        await until(dropped, "workers, once they have begun, to be somebody else")

    async def test_without_nginx(self) -> None:
        """A machine without nginx gets the packages to install."""
        with self.assertRaisesRegex(ProxyError, "apt-get install nginx libnginx-mod-http-lua"):
            await self.proxy(search=str(self.prefix)).start({})

    async def test_without_lua_module(self) -> None:
        """An nginx without the Lua module gets the package to install."""

        async def bare(argv: Sequence[str], seconds: float) -> tuple[int, str]:
            return 0, f"configure arguments: --modules-path={self.prefix}"

        with self.assertRaisesRegex(ProxyError, "apt-get install libnginx-mod-http-lua"):
            await self.proxy(run=bare).start({})

    async def test_taken_port(self) -> None:
        """A port that another program has is named, with what nginx said."""
        taken = self.app("taken").port
        with self.assertRaisesRegex(ProxyError, rf"did not start .*:{taken} failed .*in use"):
            await self.proxy(port=taken).start({})

    async def test_settings_are_refused(self) -> None:
        """Settings that cannot be are refused at once, each in one line."""
        for wrong, says in (
            ({"bind": "0.0.0.0; evil"}, "bind address"),
            ({"port": 0}, "HTTP port 0"),
            ({"ship": "a b"}, "ship name"),
        ):
            with self.assertRaisesRegex(InvalidRoute, says):
                self.proxy(**wrong)
        self.prefix = self.prefix / "deep" / ("x" * 100)
        with self.assertRaisesRegex(InvalidRoute, "too long for a unix socket"):
            self.proxy()

    async def test_ordinary_user(self) -> None:
        """nginx runs as the user that the ship is, and serves, who need not be root."""
        if os.geteuid() != 0:
            raise SkipTest("the other tests have shown it")
        self.patch(os, "geteuid", lambda: NOBODY)
        app = self.app("hello")
        proxy = await self.started(app, run=self.as_nobody)
        for number in range(3):
            await proxy.publish(route(f"new{number}"), app.backend)
            self.assertEqual((await self.fetch(f"/~new{number}/")).status, 200)
        users = {psutil.Process(pid).uids().real for pid in await self.workers()}
        self.assertEqual(users, {NOBODY})

    async def as_nobody(self, argv: Sequence[str], seconds: float) -> tuple[int, str]:
        for path in [self.prefix, *self.prefix.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        return await run(["/usr/bin/setpriv", *ids, *argv], seconds)
