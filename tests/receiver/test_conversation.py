"""One question to the ship, and who asks leaving in the middle of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from receiver.conversation import Conversation, Left


class Leaving(SynchronousTestCase):
    def test_what_nobody_waits_for_any_more(self) -> None:
        """What is begun for somebody who is gone by then is ended at once, and not left going on
        where nobody hears of its end."""
        relay = cast(Any, SimpleNamespace(gone=lambda conversation: None))
        conversation, ended = Conversation(relay), list[object]()
        conversation.connectionLost()
        begun: Deferred[None] = Deferred(ended.append)
        self.failureResultOf(Deferred.fromCoroutine(conversation.unless_left(begun)), Left)
        self.assertEqual(ended, [begun])
