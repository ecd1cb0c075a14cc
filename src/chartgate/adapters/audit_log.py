"""What records: the port that everything which decides writes its events through.

Two logs keep it: ``LogWriter``, where the files are open in this process, and ``RemoteLog``, which
asks the node's one writer process. Rules kept by both: ``append`` and ``settled`` return only when
the entries are where they were asked to be; a log that cannot say so raises ``LogUnavailable``
(45 CFR 164.312(b): nothing is released before it is recorded).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from chartgate.errors import ChartgateError

Answered = Callable[[int | ChartgateError], None]
"""Told the index of the first entry once it is recorded, or why it is not."""


class AuditLog(Protocol):
    """A log that entries are appended to."""

    @property
    def size(self) -> int:
        """Entries known to be on the medium."""

    @property
    def checkpoint(self) -> str:
        """The newest signed checkpoint known here; see ``head`` for the one over ``size``."""

    @property
    def queued(self) -> int:
        """What waits: entries for their commit, or requests for the writer's answer."""

    async def append(self, entries: Sequence[bytes], *, durable: bool = True) -> int:
        """The index of the first of these entries, once they are on the medium.

        ``durable=False`` answers when they survive the end of every process here, but not yet a
        loss of power: they are on the medium 5 ms later. Refused for what releases PHI.
        """

    async def place(self, entries: Sequence[bytes]) -> int:
        """Give entries their place and go on: on the medium within 5 ms, or see ``settled``."""

    async def settled(self, index: int) -> None:
        """Returns once the entry with this index is on the medium."""

    def post(self, entries: Sequence[bytes]) -> None:
        """Queue entries and go on; a failure to write them fails what is appended later."""

    async def head(self) -> tuple[int, str]:
        """Size, and the signed checkpoint over exactly as many entries, all on the medium."""


class Committer(AuditLog, Protocol):
    """A log of this process, as the socket's server needs it: nothing waits in a task."""

    @property
    def is_full(self) -> bool:
        """Whether an append would have to wait for room."""

    def submit(self, entries: Sequence[bytes], answered: Answered, *, durable: bool = True) -> None:
        """As ``append``, but calls back; the queue may grow beyond its bound by these entries."""

    def take(self, entries: Sequence[bytes]) -> int:
        """As ``place``, at once; the queue may grow beyond its bound by these entries."""

    async def room(self) -> None:
        """Returns once the queue has room."""
