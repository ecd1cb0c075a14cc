"""Bytes to typed messages. The rule: a length is believed only after it is checked.

A frame is a kind byte, a 32-bit length that counts itself, and a body (PostgreSQL documentation,
"Frontend/Backend Protocol", overview). Lengths under 4 or over the cap are refused as soon as the
header is seen, before a byte of the body is kept.

``take`` and ``runs`` are the hot path: they slice whole messages, header included, so that a
message goes on as the bytes it came in. A violation discards the frames before it in the same
batch: the session is over, and nothing of it is forwarded.
"""

from struct import Struct
from typing import Final, NamedTuple

from chartgate.pgwire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    StartupPacket,
    StartupReader,
)
from chartgate.pgwire.violation import ProtocolViolation, StartupRefused

__all__ = [
    "COPY_DATA",
    "DATA_ROW",
    "MAX_FRAME",
    "CancelRequest",
    "Frame",
    "FrameReader",
    "GSSENCRequest",
    "ProtocolViolation",
    "Run",
    "SSLRequest",
    "StartupMessage",
    "StartupPacket",
    "StartupReader",
    "StartupRefused",
    "split",
]

MAX_FRAME: Final = 64 * 1024 * 1024
DATA_ROW: Final = 0x44
COPY_DATA: Final = 0x64

_RUNNING: Final = frozenset((DATA_ROW, COPY_DATA))
_HEADER: Final = Struct(">BI")


class Frame(NamedTuple):
    """A typed message: its kind byte and its body without header."""

    kind: int
    body: bytes


class Run(NamedTuple):
    """One message, or several DataRow or CopyData messages on end; ``data`` has their headers."""

    kind: int
    data: bytes
    frames: int


class FrameReader:
    """Cuts a byte stream into typed messages; what is incomplete waits for more."""

    __slots__ = ("_broken", "_buffer", "_cap", "_chunks", "_held", "_need")

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        """``max_frame`` bounds the length field of every message."""
        self._cap = max_frame
        self._buffer = b""
        # Chunks of a message that is not complete are joined once, when ``_need`` bytes are
        # there: a 64 MiB message that comes in 64 KiB chunks is copied once, not 1,024 times.
        self._chunks: list[bytes] = []
        self._held = 0
        self._need = 5
        self._broken = False

    @property
    def pending(self) -> int:
        """Bytes fed and not yet given out."""
        return self._held

    def feed(self, data: bytes) -> None:
        """Add what the peer sent."""
        if data:
            self._chunks.append(data)
            self._held += len(data)

    def frames(self) -> list[Frame]:
        """Every complete message as (kind, body)."""
        return [Frame(kind, whole[5:]) for kind, whole in self.take()]

    def take(self) -> list[tuple[int, bytes]]:
        """Every complete message as (kind, whole message with header)."""
        if self._held < self._need:
            return []
        buffer = self._gather()
        end = len(buffer)
        last = end - 5
        cap = self._cap
        header = _HEADER.unpack_from
        out: list[tuple[int, bytes]] = []
        append = out.append
        at = 0
        need = 5
        while at <= last:
            kind, length = header(buffer, at)
            if length < 4 or length > cap:
                raise self._violation()
            stop = at + 1 + length
            if stop > end:
                need = length + 1
                break
            append((kind, buffer[at:stop]))
            at = stop
        self._keep(buffer, at, need)
        return out

    def runs(self) -> list[Run]:
        """Like ``take``, but neighbouring DataRows (or CopyData) stay one slice with a count."""
        if self._held < self._need:
            return []
        buffer = self._gather()
        end = len(buffer)
        last = end - 5
        cap = self._cap
        header = _HEADER.unpack_from
        out: list[Run] = []
        start = at = count = current = 0
        need = 5
        while at <= last:
            kind, length = header(buffer, at)
            if length < 4 or length > cap:
                raise self._violation()
            stop = at + 1 + length
            if stop > end:
                need = length + 1
                break
            if kind == current and kind in _RUNNING:
                count += 1
            else:
                if count:
                    out.append(Run(current, buffer[start:at], count))
                start, current, count = at, kind, 1
            at = stop
        if count:
            out.append(Run(current, buffer[start:at], count))
        self._keep(buffer, at, need)
        return out

    def rest(self) -> bytes:
        """What was fed and is no complete message; the reader is empty afterwards."""
        buffer = self._gather()
        self._keep(b"", 0, 5)
        return buffer

    def _gather(self) -> bytes:
        if self._broken:
            raise ProtocolViolation("the stream is broken since an earlier violation")
        if len(self._chunks) == 1 and not self._buffer:
            return self._chunks[0]
        return b"".join((self._buffer, *self._chunks))

    def _keep(self, buffer: bytes, at: int, need: int) -> None:
        self._buffer = buffer[at:]
        self._chunks = []
        self._held = len(self._buffer)
        self._need = need

    def _violation(self) -> ProtocolViolation:
        self._broken = True
        self._buffer, self._chunks = b"", []
        self._held, self._need = 0, 0
        return ProtocolViolation("a message has an impossible length")


def split(data: bytes) -> list[bytes]:
    """Whole messages of a ``Run``, one by one; ``data`` holds complete messages only."""
    reader = FrameReader()
    reader.feed(data)
    whole = [message for _, message in reader.take()]
    if reader.pending:
        raise ProtocolViolation("a run of messages ends inside one")
    return whole
