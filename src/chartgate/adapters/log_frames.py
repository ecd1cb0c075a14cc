"""The protocol of the log socket: frames, requests and answers, as bytes.

A frame is a big-endian 32-bit length and that many bytes, at most 1 MiB. The first frame each way is
JSON, the greeting. Every other is ``op(1) number(4)`` and a body; the answer is ``status(1)
number(4)`` and a body, and answers come in any order. Entries travel as in a C2SP entry bundle, a
big-endian 16-bit length before each: no encoding, no escaping.

Rule kept: what is not exactly one of these ends the connection; nothing is guessed.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from struct import Struct
from typing import Final

import msgspec

from chartgate.errors import ChartgateError, Corrupt, LogUnavailable, Refused
from chartgate.tlog.tile import MAX_ENTRY

VERSION: Final = 2
MAX_FRAME: Final = 1 << 20
_LENGTH: Final = Struct(">I")
_REQUEST: Final = Struct(">IBI")
_KIND: Final = Struct(">BI")
_ENTRY: Final = Struct(">H")
_NUMBER: Final = Struct(">Q")
ROOM: Final = MAX_FRAME - _KIND.size
"""Bytes of entries, each with its length, that one request holds."""


class Op(IntEnum):
    """What is asked."""

    APPEND = 1
    """Entries; answered when they are on the medium."""
    RELAXED = 2
    """Entries; answered when they survive the end of the process."""
    PLACE = 3
    """Entries; answered at once with their place."""
    SETTLE = 4
    """An index; answered when its entry is on the medium."""
    HEAD = 5
    """Answered with the size and the signed checkpoint."""


class Status(IntEnum):
    """How it went."""

    OK = 0
    REFUSED = 1
    UNAVAILABLE = 2


class Malformed(Corrupt):
    """Bytes at the log socket that are no frame of this protocol."""

    code = "malformed_frame"


class Hello(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Who calls. ``kind``: ``command``, ``worker``, ``gateway`` or ``app``."""

    v: int
    kind: str
    token: str = ""
    """An application's service token."""


class Welcome(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Who answers. ``error`` says why not."""

    v: int = VERSION
    origin: str = ""
    node: str = ""
    size: int = 0
    checkpoint: str = ""
    service: str = ""
    """Of an application: the uid of the account that its token is of."""
    error: str = ""
    unavailable: bool = False


def framed(body: bytes) -> bytes:
    """A greeting, in its frame."""
    return _LENGTH.pack(len(body)) + body


def request(op: Op, number: int, body: bytes = b"") -> bytes:
    """A request, in its frame."""
    length = _KIND.size + len(body)
    if length > MAX_FRAME:
        raise Refused("too many bytes for one append")
    return _REQUEST.pack(length, op, number) + body


def answer(status: Status, number: int, body: bytes) -> bytes:
    """An answer, in its frame."""
    return _REQUEST.pack(_KIND.size + len(body), status, number) + body


def taken_apart(frame: bytes) -> tuple[int, int, bytes]:
    """(op or status, number, body) of a frame behind the greeting."""
    if len(frame) < _KIND.size:
        raise Malformed("a frame that is too short")
    kind, number = _KIND.unpack_from(frame)
    return kind, number, frame[_KIND.size :]


def pack_entries(entries: Sequence[bytes]) -> bytes:
    """The body of an append."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise Refused(f"a log entry has at most {MAX_ENTRY} bytes, this one has {len(entry)}")
        parts += (_ENTRY.pack(len(entry)), entry)
    return b"".join(parts)


def in_requests(entries: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The entries in runs that a request holds each; one run, were there nothing in it."""
    start = size = 0
    for at, entry in enumerate(entries):
        needed = len(entry) + _ENTRY.size
        if size + needed > ROOM and at > start:
            yield entries[start:at]
            start, size = at, 0
        size += needed
    yield entries[start:]


def unpack_entries(body: bytes) -> tuple[bytes, ...]:
    """The entries of an append: at least one."""
    entries: list[bytes] = []
    offset, end = 0, len(body)
    while offset < end:
        if offset + _ENTRY.size > end:
            raise Malformed("an entry that is too short")
        start = offset + _ENTRY.size
        offset = start + _ENTRY.unpack_from(body, offset)[0]
        if offset > end:
            raise Malformed("an entry that is too short")
        entries.append(body[start:offset])
    if not entries:
        raise Refused("an append without entries")
    return tuple(entries)


def pack_number(number: int) -> bytes:
    """An index or a size."""
    return _NUMBER.pack(number)


def unpack_number(body: bytes) -> int:
    """The index or size."""
    if len(body) != _NUMBER.size:
        raise Malformed("a number that is not 64 bits long")
    found: int = _NUMBER.unpack(body)[0]
    return found


def pack_head(size: int, checkpoint: str) -> bytes:
    """Size and checkpoint."""
    return _NUMBER.pack(size) + checkpoint.encode()


def unpack_head(body: bytes) -> tuple[int, str]:
    """Size and checkpoint."""
    try:
        return unpack_number(body[: _NUMBER.size]), body[_NUMBER.size :].decode()
    except UnicodeDecodeError as exc:
        raise Malformed("a checkpoint that is not UTF-8") from exc


def failure(exc: ChartgateError, number: int) -> bytes:
    """The answer that says why not."""
    is_down = isinstance(exc, LogUnavailable)
    return answer(Status.UNAVAILABLE if is_down else Status.REFUSED, number, str(exc).encode())


def raised(status: int, body: bytes) -> ChartgateError:
    """The error of an answer that is not ``OK``."""
    words = body.decode(errors="replace")
    return Refused(words) if status == Status.REFUSED else LogUnavailable(words)


class Frames:
    """Cuts a stream of bytes into frames; holds at most one unfinished frame and what came with it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Bytes that arrived."""
        self._data += data

    def next(self) -> bytes | None:
        """The next whole frame, without its length; raises ``Malformed`` for one too long."""
        data, at = self._data, self._at
        if len(data) - at < _LENGTH.size:
            self._forget()
            return None
        end = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
        if end - at - _LENGTH.size > MAX_FRAME:
            raise Malformed("a frame that is too long")
        if end > len(data):
            self._forget()
            return None
        self._at = end
        return bytes(memoryview(data)[at + _LENGTH.size : end])

    def _forget(self) -> None:
        if self._at:
            del self._data[: self._at]
            self._at = 0
