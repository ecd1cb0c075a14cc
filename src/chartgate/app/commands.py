"""What the gateway's conversation asks of the world: it yields these, the shell performs them.

Decide, record, act is visible in the order of the commands, so that order is what unit tests
check: no ``ToClient`` with a row before the ``Record`` that covers it has been answered.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

from chartgate.model.event import Event


@dataclass(frozen=True, slots=True)
class Record:
    """Put events on disk; answered with the log index of the first when they are durable."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Post:
    """Give events their place in the log and go on; answered with the index of the first.

    They are on disk when an ``Await`` of that index, or any later ``Record``, is answered.
    """

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until the entry with this index, and so every one before it, is on disk."""

    index: int


@dataclass(frozen=True, slots=True)
class Note:
    """Queue events that nobody waits for; a failure to write them stops the next ``Record``."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class ToServer:
    """Send bytes to the source database."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ToClient:
    """Send bytes to the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class FromClient:
    """The client's next message (``Frame``), or ``None`` when the server has something unasked."""


@dataclass(frozen=True, slots=True)
class FromServer:
    """The server's next messages, runs of rows kept together (a list of ``Run``)."""


Command: TypeAlias = Record | Post | Await | Note | ToServer | ToClient | FromClient | FromServer
Talk: TypeAlias = Generator[Command, Any, None]
"""What a command is answered with depends on the command; see each."""
