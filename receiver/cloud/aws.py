"""AWS, with limits of time; what goes wrong there is one line. Only this module knows boto3."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, Generic, TypeVar

import boto3
from attrs import define, field, frozen
from botocore import exceptions
from botocore.config import Config as Limits

from hooks.errors import Refused, ShipError
from hooks.say import plain

ZONES = ("us-east-1", "us-west-1", "us-west-2", "eu-west-1")
"""The regions that `init` makes ready. A ship may be in any other."""
HOME = "us-east-1"  # which regions there are is asked there, unless the environment names another
SECONDS = 30.0  # that an answer of all regions may take
_LIMITS = Limits(
    connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3}
)
_LONGEST = 300  # characters of what AWS says
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"

T = TypeVar("T")


@frozen
class Answer(Generic[T]):
    """What one region answered, or why it did not."""

    region: str
    value: T | None
    trouble: str = ""


@define
class Aws:
    """One session, with the credentials that boto3 finds by itself: the environment, ~/.aws, the
    role of an instance."""

    session: Any = field(factory=boto3.Session)

    def client(self, service: str, region: str) -> Any:
        with told(region):
            if self.session.get_credentials() is None:
                raise exceptions.NoCredentialsError
            return self.session.client(service, region_name=region, config=_LIMITS)

    def regions(self) -> list[str]:
        """Those that the account uses."""
        home = self.session.region_name or HOME
        with told(home):
            answer = self.client("ec2", home).describe_regions()
        return sorted(one["RegionName"] for one in answer["Regions"])

    def region(self, name: str) -> Any:
        """EC2 of one region; `Refused` names those that there are."""
        known = self.regions()
        if name not in known:
            raise Refused(f"{ascii(name)[:40]} is no region of EC2; there are {', '.join(known)}")
        return self.client("ec2", name)

    def in_each(
        self, regions: Sequence[str], ask: Callable[[Any], T], seconds: float = SECONDS
    ) -> Iterator[Answer[T]]:
        """What `ask` says to EC2 of each region, all at once, as they come in."""
        answers: SimpleQueue[Answer[T]] = SimpleQueue()
        for region in regions:
            # A daemon: nobody waits for it after Ctrl-C.
            argv = (region, self.client("ec2", region), ask, answers.put)
            Thread(target=_answer, args=argv, daemon=True).start()
        end, missing = monotonic() + seconds, set(regions)
        while missing:
            try:
                answer = answers.get(timeout=max(0.0, end - monotonic()))
            except Empty:
                late = f"no answer within {seconds:g} s"
                yield from (Answer(one, None, red(f"{one}: {late}")) for one in sorted(missing))
                return
            missing.remove(answer.region)
            yield answer


def _answer(
    region: str, ec2: Any, ask: Callable[[Any], T], put: Callable[[Answer[T]], None]
) -> None:
    try:
        with told(region):
            put(Answer(region, ask(ec2)))
    except ShipError as error:
        put(Answer(region, None, str(error)))


@contextmanager
def told(where: str) -> Iterator[None]:
    """Turn what goes wrong at AWS into a `ShipError` of one line, which begins with `where`."""
    try:
        yield
    except exceptions.NoCredentialsError:
        raise ShipError(
            needed("AWS_ACCESS_KEY_ID") + ", with AWS_SECRET_ACCESS_KEY, or credentials in ~/.aws"
        ) from None
    except exceptions.PartialCredentialsError as error:
        raise ShipError(needed(str(error.kwargs["cred_var"]).upper())) from None
    except exceptions.ClientError as error:
        about = error.response.get("Error", {})
        said = f"{about.get('Message', error)} ({about.get('Code', 'no code')})"
        raise ShipError(red(f"{where}: {said}")) from None
    except exceptions.BotoCoreError as error:
        raise ShipError(red(f"{where}: {error}")) from None


@contextmanager
def unless(*codes: str) -> Iterator[None]:
    """Go on where AWS refuses with one of these: somebody else was quicker."""
    try:
        yield
    except exceptions.ClientError as error:
        if error.response.get("Error", {}).get("Code") not in codes:
            raise


def needed(name: str) -> str:
    return f"{name} needs to be in your environment"


def red(text: str) -> str:
    """One line of what came from elsewhere, red on a terminal."""
    line = re.sub(r"\s+", " ", plain(text.replace("\n", " "))).strip()[:_LONGEST]
    return f"{_RED}{line}{_PLAIN}" if sys.stderr.isatty() else line
