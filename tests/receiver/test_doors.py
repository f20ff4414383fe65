"""Sockets that outlive who listens on them."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from containers.watching import in_thread
from receiver.succession.doors import Doors
from tests.ports import free_port

reactor: Any = default_reactor


class Greeter(Factory):
    """Says who it is, and tells when somebody came."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.came: Deferred[None] = Deferred()

    def buildProtocol(self, addr: object) -> Protocol:
        greeter = self

        class Greeting(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(greeter.name)
                self.transport.loseConnection()
                greeter.came.callback(None)

        return Greeting()


class Handing(TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()  # a socket's path may not be long
        self.addCleanup(place.cleanup)
        self.path = f"{place.name}/door"

    def mode(self) -> int:
        return stat.S_IMODE(Path(self.path).stat().st_mode)

    def doors(self) -> Doors:
        doors = Doors(reactor)
        self.addCleanup(doors.close)
        return doors

    async def test_who_comes_between_two_is_served_by_the_next(self) -> None:
        """A connection that nobody accepts yet waits, by TCP and by a path; the next one, which was
        given the sockets, accepts it."""
        port, first, second = free_port(), self.doors(), self.doors()
        for door in (
            first.listenTCP(port, Greeter(b"first"), interface="127.0.0.1"),
            first.listenUNIX(self.path, Greeter(b"first"), mode=0o600),
        ):
            await door.stopListening()
        self.assertEqual(self.mode(), 0o600)
        clients = [socket.create_connection(("127.0.0.1", port)), socket.socket(socket.AF_UNIX)]
        clients[1].connect(self.path)
        second.take(first.names, [os.dup(each) for each in first.descriptors])
        first.close()
        greeters = [Greeter(b"second"), Greeter(b"second")]
        opened = [
            second.listenTCP(port, greeters[0], interface="127.0.0.1"),
            second.listenUNIX(self.path, greeters[1], mode=0o600),
        ]
        self.assertEqual(self.mode(), 0o600)
        for greeter, client in zip(greeters, clients, strict=True):
            await greeter.came
            client.settimeout(5)
            self.assertEqual(await in_thread(reactor, client.recv, 10), b"second")
            client.close()
        for door in opened:
            await door.stopListening()

    async def test_the_same_one_may_listen_again(self) -> None:
        """Who closed a door opens it again by its address."""
        port, doors, again = free_port(), self.doors(), Greeter(b"again")
        await doors.listenTCP(port, Greeter(b"first"), interface="127.0.0.1").stopListening()
        client = socket.create_connection(("127.0.0.1", port), 5)
        door = doors.listenTCP(port, again, interface="127.0.0.1")
        await again.came
        self.assertEqual(await in_thread(reactor, client.recv, 10), b"again")
        client.close()
        await door.stopListening()

    def test_a_port_that_is_taken_is_told_as_twisted_does(self) -> None:
        """`CannotListenError` with the port."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        port = taken.getsockname()[1]
        with self.assertRaises(CannotListenError) as caught:
            self.doors().listenTCP(port, Greeter(b""), interface="127.0.0.1")
        self.assertEqual(caught.exception.port, port)
