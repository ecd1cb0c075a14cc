"""Frames of the write-ahead log, and what the end of such a file means.

A frame is ``magic(3) type(1) length(4) payload-CRC(4) header-CRC(4)`` and the payload, numbers
big-endian, CRC-32 as in zlib. A file begins with one HEAD (where it starts, the signed checkpoint
at that size) and continues with COMMITs: the entries of one group commit, and behind them, in the
same buffer, the checkpoint signed over the tree that includes them.

Rule kept: the header has a CRC of its own, so a damaged length can never pass for a torn write.
Torn is *only* a tail that ends before its (trusted) length, or that is zeros from a frame's
border to the end; everything else is corruption and must stop start-up. The checkpoint comes
last, so that a torn frame holds no complete signature: no second history was ever signed.
"""

from dataclasses import dataclass
from struct import Struct
from zlib import crc32

from chartgate.errors import Corrupt, Refused
from chartgate.tlog.tile import MalformedBundle, decode_bundle, encode_bundle

MAGIC = b"\xc9WL"
HEAD = 1
COMMIT = 2
VERSION = 1
MAX_PAYLOAD = 1 << 28
"""256 MiB: 4,096 entries of the largest size. A larger batch is refused, not split."""

_HEADER = Struct(">3sBII")
_CRC = Struct(">I")
HEADER_BYTES = _HEADER.size + _CRC.size
_HEAD = Struct(">BIQ")
_COMMIT = Struct(">QIH")


class MalformedFrame(Corrupt):
    """A frame whose checksums hold but whose payload is not what its type says."""

    code = "malformed_frame"


@dataclass(frozen=True, slots=True)
class Head:
    """First frame of a file: index of its first entry, leaves per segment, checkpoint there."""

    first: int
    segment_leaves: int
    checkpoint: str

    def __bytes__(self) -> bytes:
        body = _HEAD.pack(VERSION, self.segment_leaves, self.first) + self.checkpoint.encode()
        return _frame(HEAD, body)


@dataclass(frozen=True, slots=True)
class Commit:
    """One group commit: entries from index ``first`` on, and the checkpoint that covers them."""

    first: int
    entries: tuple[bytes, ...]
    checkpoint: str

    def __bytes__(self) -> bytes:
        text = self.checkpoint.encode()
        size = _COMMIT.pack(self.first, len(self.entries), len(text))
        return _frame(COMMIT, b"".join((size, encode_bundle(self.entries), text)))


@dataclass(frozen=True, slots=True)
class Placed:
    """A frame and where it stands in the file."""

    offset: int
    end: int
    frame: Head | Commit


@dataclass(frozen=True, slots=True)
class Clean:
    """The file ends with its last frame."""


@dataclass(frozen=True, slots=True)
class Torn:
    """From ``offset`` on stands a write that never finished."""

    offset: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """At ``offset`` stands something that no unfinished write leaves behind."""

    offset: int
    reason: str


End = Clean | Torn | Damaged


def scan(
    data: bytes | memoryview, start: int = 0, *, base: int = 0
) -> tuple[tuple[Placed, ...], End]:
    """Frames from ``start`` on and what follows them; ``base`` is the file offset of ``data[0]``."""
    view, offset = memoryview(data), start
    frames: list[Placed] = []
    while offset < len(view):
        read = _read(view, offset)
        if not isinstance(read, Placed):
            if isinstance(read, Torn):
                return tuple(frames), Torn(read.offset + base)
            return tuple(frames), Damaged(read.offset + base, read.reason)
        offset = read.end
        frames.append(Placed(read.offset + base, read.end + base, read.frame))
    return tuple(frames), Clean()


def _read(view: memoryview, offset: int) -> Placed | Torn | Damaged:
    rest = view[offset:]
    if _all_zero(rest):
        return Torn(offset)
    if bytes(rest[:3]) != MAGIC[: len(rest)]:
        return Damaged(offset, "no frame begins here")
    if len(rest) < HEADER_BYTES:
        return Torn(offset)
    _, kind, length, checksum = _HEADER.unpack_from(rest)
    if _CRC.unpack_from(rest, _HEADER.size)[0] != crc32(rest[: _HEADER.size]):
        return Damaged(offset, "the frame header fails its checksum")
    if kind not in (HEAD, COMMIT) or length > MAX_PAYLOAD:
        return Damaged(offset, "a frame of unknown type or impossible length")
    end = HEADER_BYTES + length
    if len(rest) < end:
        return Torn(offset)
    payload = rest[HEADER_BYTES:end]
    if crc32(payload) != checksum:
        return Damaged(offset, "the frame payload fails its checksum")
    try:
        frame = _head(payload) if kind == HEAD else _commit(payload)
    except (MalformedFrame, MalformedBundle) as exc:
        return Damaged(offset, str(exc))
    return Placed(offset, offset + end, frame)


def _head(payload: memoryview) -> Head:
    if len(payload) < _HEAD.size:
        raise MalformedFrame("a head frame that is too short")
    version, leaves, first = _HEAD.unpack_from(payload)
    if version != VERSION:
        raise MalformedFrame(f"log format {version} is not known here")
    return Head(first, leaves, _text(payload[_HEAD.size :]))


def _commit(payload: memoryview) -> Commit:
    if len(payload) < _COMMIT.size:
        raise MalformedFrame("a commit frame that is too short")
    first, count, length = _COMMIT.unpack_from(payload)
    border = len(payload) - length
    if count == 0 or border < _COMMIT.size:
        raise MalformedFrame("a commit frame whose parts do not add up")
    entries = decode_bundle(payload[_COMMIT.size : border], count)
    return Commit(first, entries, _text(payload[border:]))


def _text(raw: memoryview) -> str:
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as exc:
        raise MalformedFrame("a checkpoint that is not UTF-8") from exc


def _frame(kind: int, payload: bytes) -> bytes:
    if len(payload) > MAX_PAYLOAD:
        raise Refused(f"a commit has at most {MAX_PAYLOAD} bytes, this one has {len(payload)}")
    header = _HEADER.pack(MAGIC, kind, len(payload), crc32(payload))
    return b"".join((header, _CRC.pack(crc32(header)), payload))


def _all_zero(view: memoryview) -> bool:
    step = 1 << 16
    return all(not any(view[i : i + step]) for i in range(0, len(view), step))
