"""A PostgreSQL connection on asyncio: frames in, bytes out, bounded both ways.

A slow reader stops the other side: writing waits while the transport's buffer is full, and
reading pauses while a megabyte of frames is waiting.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from chartgate.errors import ChartgateError
from chartgate.pgwire.frames import MAX_FRAME, Frame, FrameReader, Run
from chartgate.pgwire.violation import ProtocolViolation

_HIGH: Final = 1 << 20


class ConnectionEnded(ChartgateError):
    """The peer is gone."""

    code = "connection_ended"
    sqlstate = "08006"


class Signal:
    """Wakes the one task that waits for either of two wires."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Wire(asyncio.Protocol):
    """One side of a session. Raw bytes come first (start-up), typed frames after ``typed``."""

    def __init__(self, on_connected: "Callable[[Wire], None] | None" = None) -> None:
        self.signal = Signal()
        self.transport: asyncio.Transport | None = None
        self._on_connected = on_connected
        self._raw = bytearray()
        self._reader: FrameReader | None = None
        self._keep_runs = False
        self._waiting: deque[Frame | Run] = deque()
        self._waiting_bytes = 0
        self._is_paused = False
        self._can_write: asyncio.Future[None] | None = None
        self._failure: ProtocolViolation | None = None
        self.is_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        if self._failure is not None:
            return
        if self._reader is None:
            self._raw += data
        else:
            self._feed(data)
        if self._waiting_bytes + len(self._raw) > _HIGH and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()
        self.signal.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_ended = True
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        self.signal.set()

    def pause_writing(self) -> None:
        if self._can_write is None or self._can_write.done():
            self._can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)

    def typed(self, first: bytes = b"", *, runs: bool, max_frame: int = MAX_FRAME) -> None:
        """From here on the stream is typed messages; ``runs`` keeps neighbouring rows together.

        Called again when a login has succeeded, which raises the cap on a message.
        """
        if self._reader is not None:
            first = self._reader.rest() + first
        self._reader = FrameReader(max_frame)
        self._keep_runs = runs
        raw, self._raw = bytes(self._raw), bytearray()
        self._feed(first + raw)

    def take_raw(self) -> bytes:
        """What has come of the untyped start-up; empties it."""
        raw, self._raw = bytes(self._raw), bytearray()
        return raw

    @property
    def has_frames(self) -> bool:
        """Whether a message is there to be taken."""
        return bool(self._waiting)

    def take_frame(self) -> Frame | Run:
        """The next message; only when ``has_frames``."""
        frame = self._waiting.popleft()
        self._waiting_bytes -= len(frame[1])
        self._resume()
        return frame

    def take_runs(self) -> list[Run]:
        """Every message that is there."""
        runs = [frame for frame in self._waiting if isinstance(frame, Run)]
        self._waiting.clear()
        self._waiting_bytes = 0
        self._resume()
        return runs

    def check(self) -> None:
        """Raise what the stream itself has done wrong, or that it is over."""
        if self._failure is not None:
            raise self._failure
        if self.is_ended and not self._waiting:
            raise ConnectionEnded("the connection has ended")

    def write(self, data: bytes) -> None:
        """Send; ``drain`` afterwards."""
        if self.transport is not None and not self.is_ended:
            self.transport.write(data)

    @property
    def is_full(self) -> bool:
        """Whether the peer reads slower than we write."""
        return self._can_write is not None and not self._can_write.done()

    async def drain(self) -> None:
        """Wait while the peer reads slower than we write."""
        if self._can_write is not None and not self._can_write.done():
            await asyncio.shield(self._can_write)

    def close(self) -> None:
        """Send what is written, then end."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """End at once."""
        if self.transport is not None:
            self.transport.abort()

    def _feed(self, data: bytes) -> None:
        assert self._reader is not None
        try:
            self._reader.feed(data)
            frames = self._reader.runs() if self._keep_runs else self._reader.frames()
        except ProtocolViolation as exc:
            self._failure = exc
            if self.transport is not None:
                self.transport.pause_reading()  # nothing that follows will be looked at
            return
        for frame in frames:
            self._waiting.append(frame)
            self._waiting_bytes += len(frame[1])

    def _resume(self) -> None:
        if (
            self._is_paused
            and self._waiting_bytes < _HIGH
            and self._failure is None
            and self.transport is not None
        ):
            self._is_paused = False
            self.transport.resume_reading()
