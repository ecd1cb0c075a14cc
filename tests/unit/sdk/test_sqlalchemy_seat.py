"""A person's session is in the log before her first word is looked at."""

from collections.abc import Generator
from typing import Any

import pytest

from chartgate.app.commands import Command, FromClient, Record, ToClient
from chartgate.errors import LogUnavailable
from chartgate.sdk.sqlalchemy_seat import seated


class Taken:
    """Somebody who sits down when the first message comes."""

    is_recorded = False

    def take(self) -> "Taken":
        return self

    def started(self) -> str:
        return "she began"


def talk() -> Generator[Command, Any, str]:
    """Asks for two messages and answers each; says how it was ended."""
    try:
        for _ in range(2):
            message = yield FromClient()
            yield ToClient(message)
    except LogUnavailable:
        yield ToClient(b"nothing is released")
        return "the log failed"
    return "client left"


def test_the_session_is_recorded_once_and_before_the_first_message_is_looked_at() -> None:
    running = seated(Taken(), talk())  # type: ignore[arg-type]
    assert next(running) == FromClient()
    assert running.send(b"one") == Record(("she began",))  # type: ignore[arg-type]
    assert running.send(7) == ToClient(b"one")
    assert running.send(None) == FromClient()
    assert running.send(b"two") == ToClient(b"two")
    with pytest.raises(StopIteration, match="client left"):
        running.send(None)


def test_a_log_that_cannot_take_the_session_ends_the_conversation() -> None:
    running = seated(Taken(), talk())  # type: ignore[arg-type]
    next(running)
    running.send(b"one")
    assert running.throw(LogUnavailable("gone")) == ToClient(b"nothing is released")
    with pytest.raises(StopIteration, match="the log failed"):
        running.send(None)


def test_a_log_that_fails_later_is_told_to_the_conversation() -> None:
    one = Taken()
    one.is_recorded = True
    running = seated(one, talk())  # type: ignore[arg-type]
    next(running)
    assert running.send(b"one") == ToClient(b"one")
    assert running.throw(LogUnavailable("gone")) == ToClient(b"nothing is released")
