"""Frames of the write-ahead log, and what the end of such a file means.

A frame is ``magic(3) type(1) length(4) payload-CRC(4) header-CRC(4)`` and the payload, numbers
big-endian, CRC-32 as in zlib. A file begins with one HEAD (where it starts, the signed checkpoint
at that size) and continues with COMMITs: the entries of one group commit, and behind them, in the
same buffer, the checkpoint signed over the tree that includes them. ENTRIES are written before they
are signed, for whoever does not wait for the medium; the SEAL that follows is a COMMIT that covers
them too. Each of the two says where that run of unsynced frames began.

A file may be longer than what is in it: zeros behind the last frame are its end.

Rules kept: the header has a CRC of its own, so a damaged length can never pass for a torn write. The
checkpoint comes last, so that a torn frame holds no complete signature: no second history was ever
signed. Torn is *only* what a write that never finished can leave behind it, and only where nothing
shows that it had been synced; everything else is corruption and must stop start-up:

- a beginning of a frame at the end of the file, or with nothing but zeros behind it;
- a frame that lacks whole sectors: a disk writes them in any order, each of them whole;
- and no frame behind it that was written only after it was synced, as each COMMIT is, each frame
  of a run that began later, and whatever stands behind a SEAL.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from zlib import crc32

from chartgate.errors import Corrupt, Refused
from chartgate.tlog.tile import MalformedBundle, decode_bundle, encode_bundle

MAGIC = b"\xc9WL"
HEAD = 1
COMMIT = 2
ENTRIES = 3
SEAL = 4
VERSION = 1
SECTOR = 512
MAX_PAYLOAD = 1 << 28
"""256 MiB: 4,096 entries of the largest size. A larger batch is refused, not split."""

_HEADER = Struct(">3sBII")
_CRC = Struct(">I")
HEADER_BYTES = _HEADER.size + _CRC.size
_HEAD = Struct(">BIQ")
_COMMIT = Struct(">QIH")
_RUN = Struct(">QQI")
_SINCE = Struct(">Q")
_END = b"\n"
"""Ends every payload: what ends with a zero is not written to its end."""


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
    """One group commit: entries from index ``first`` on, and the checkpoint that covers them.

    ``since``: of a SEAL, the index of the first entry that was written before it and not signed.
    """

    first: int
    entries: tuple[bytes, ...]
    checkpoint: str
    since: int | None = None

    def __bytes__(self) -> bytes:
        text = self.checkpoint.encode()
        size = _COMMIT.pack(self.first, len(self.entries), len(text))
        parts = (size, encode_bundle(self.entries), text)
        if self.since is None:
            return _frame(COMMIT, b"".join(parts))
        return _frame(SEAL, b"".join((_SINCE.pack(self.since), *parts)))


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries from index ``first`` on that no checkpoint covers yet; ``since`` as in a SEAL."""

    first: int
    entries: tuple[bytes, ...]
    since: int

    def __bytes__(self) -> bytes:
        head = _RUN.pack(self.since, self.first, len(self.entries))
        return _frame(ENTRIES, b"".join((head, encode_bundle(self.entries), _END)))


@dataclass(frozen=True, slots=True)
class Placed:
    """A frame and where it stands in the file."""

    offset: int
    end: int
    frame: Head | Commit | Entries


@dataclass(frozen=True, slots=True)
class Clean:
    """The file ends with its last frame, or with zeros behind it."""


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
        if not view[offset] and _is_zero(view[offset:]):
            break
        read = _read(view, offset)
        if not isinstance(read, Placed):
            after = frames[-1].frame if frames else None
            return tuple(frames), _judged(view, base, read, after)
        offset = read.end
        frames.append(Placed(read.offset + base, read.end + base, read.frame))
    return tuple(frames), Clean()


def follows(frame: Commit | Entries, signed: int, written: int) -> bool:
    """Whether the frame goes on where ``written`` entries are and ``signed`` of them signed.

    A run of unsigned entries ends with its own seal.
    """
    if frame.first != written:
        return False
    is_of_run = isinstance(frame, Entries) or written > signed
    return frame.since == (signed if is_of_run else None)


@dataclass(frozen=True, slots=True)
class _Bad:
    """No frame at ``offset``; one that was written would reach to ``end``."""

    offset: int
    end: int
    reason: str
    is_cut: bool = False
    """The file ends within it."""
    never_torn: bool = False


def _read(view: memoryview, offset: int) -> Placed | _Bad:
    rest = view[offset:]
    if bytes(rest[:3]) != MAGIC[: len(rest)]:
        return _Bad(offset, offset + HEADER_BYTES, "no frame begins here")
    if len(rest) < HEADER_BYTES:
        return _Bad(offset, offset + HEADER_BYTES, "", is_cut=True)
    _, kind, length, checksum = _HEADER.unpack_from(rest)
    if _CRC.unpack_from(rest, _HEADER.size)[0] != crc32(rest[: _HEADER.size]):
        return _Bad(offset, offset + HEADER_BYTES, "the frame header fails its checksum")
    end = offset + HEADER_BYTES + length
    if kind not in _PARSERS or length > MAX_PAYLOAD:
        reason = "a frame of unknown type or impossible length"
        return _Bad(offset, end, reason, never_torn=True)
    if len(view) < end:
        return _Bad(offset, end, "", is_cut=True)
    payload = view[offset + HEADER_BYTES : end]
    if crc32(payload) != checksum:
        return _Bad(offset, end, "the frame payload fails its checksum")
    try:
        frame = _PARSERS[kind](payload)
    except (MalformedFrame, MalformedBundle) as exc:
        return _Bad(offset, end, str(exc), never_torn=True)
    return Placed(offset, end, frame)


def _judged(view: memoryview, base: int, bad: _Bad, after: Head | Commit | Entries | None) -> End:
    """Torn or damaged: see the rules above."""
    if bad.is_cut:
        return Torn(bad.offset + base)
    unfinished = not bad.never_torn and (
        _is_beginning(view, bad) or _lacks_a_sector(view, base, bad)
    )
    if not unfinished or _was_synced(view, bad, after):
        return Damaged(bad.offset + base, bad.reason)
    return Torn(bad.offset + base)


def _is_beginning(view: memoryview, bad: _Bad) -> bool:
    """Whether the file holds the first bytes of a frame, and then zeros to its end."""
    written = bytes(view[bad.offset : bad.end]).rstrip(b"\0")
    begins = MAGIC.startswith(written[:3]) and len(written) < bad.end - bad.offset
    return begins and _is_zero(view[bad.offset + len(written) :])


def _lacks_a_sector(view: memoryview, base: int, bad: _Bad) -> bool:
    """Whether one that the frame reaches into was never written, from the frame's start on."""
    at = bad.offset
    while at < bad.end:
        border = at + SECTOR - (at + base) % SECTOR
        if _is_zero(view[at:border]):
            return True
        at = border
    return False


def _was_synced(view: memoryview, bad: _Bad, after: Head | Commit | Entries | None) -> bool:
    """Whether a frame stands behind the bad one that was written after the bad one was synced."""
    data = bytes(view)
    expected = None
    if isinstance(after, Commit | Entries):
        expected = after.first + len(after.entries)
    elif after is not None:
        expected = after.first
    at = bad.offset
    while (at := data.find(MAGIC, at + 1)) >= 0:  # JSON is UTF-8, where these bytes never are
        found = _read(view, at)
        if not isinstance(found, Placed):
            continue
        frame = found.frame
        if isinstance(frame, Head) or frame.since is None:
            return True
        if expected is not None and frame.since > expected:
            return True
        if isinstance(frame, Commit) and not _is_zero(view[found.end :]):
            return True
    return False


def _head(payload: memoryview) -> Head:
    if len(payload) < _HEAD.size:
        raise MalformedFrame("a head frame that is too short")
    version, leaves, first = _HEAD.unpack_from(payload)
    if version != VERSION:
        raise MalformedFrame(f"log format {version} is not known here")
    return Head(first, leaves, _text(payload[_HEAD.size :]))


def _commit(payload: memoryview) -> Commit:
    commit = _commit_of(payload, None)
    if not commit.entries:
        raise MalformedFrame("a commit frame without entries")
    return commit


def _seal(payload: memoryview) -> Commit:
    if len(payload) < _SINCE.size:
        raise MalformedFrame("a seal frame that is too short")
    seal = _commit_of(payload[_SINCE.size :], _SINCE.unpack_from(payload)[0])
    if seal.since is None or seal.since >= seal.first:
        raise MalformedFrame("a seal frame that seals nothing")
    return seal


def _commit_of(payload: memoryview, since: int | None) -> Commit:
    if len(payload) < _COMMIT.size:
        raise MalformedFrame("a commit frame that is too short")
    first, count, length = _COMMIT.unpack_from(payload)
    border = len(payload) - length
    if border < _COMMIT.size:
        raise MalformedFrame("a commit frame whose parts do not add up")
    entries = decode_bundle(payload[_COMMIT.size : border], count)
    return Commit(first, entries, _text(payload[border:]), since)


def _entries(payload: memoryview) -> Entries:
    if len(payload) <= _RUN.size or payload[-1:] != _END:
        raise MalformedFrame("an entries frame that is too short")
    since, first, count = _RUN.unpack_from(payload)
    if count == 0 or since > first:
        raise MalformedFrame("an entries frame whose parts do not add up")
    return Entries(first, decode_bundle(payload[_RUN.size : -1], count), since)


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


def _is_zero(view: memoryview) -> bool:
    """Whether all of it is zeros; nothing at all counts."""
    step = len(_ZEROS)
    return all(
        view[i : i + step].tobytes() == _ZEROS[: len(view) - i] for i in range(0, len(view), step)
    )


_ZEROS = bytes(1 << 16)
_PARSERS: dict[int, Callable[[memoryview], Head | Commit | Entries]] = {
    HEAD: _head,
    COMMIT: _commit,
    ENTRIES: _entries,
    SEAL: _seal,
}
