"""Packed segments: 65,536 entries of the log in one immutable file.

Layout, numbers big-endian, CRC-32 as in zlib:

| part | content |
|---|---|
| header, 32 bytes | magic(8) first index(8) leaves(4) bytes of entries(8) CRC of the header(4) |
| entries | C2SP entry bundles of 256, one after the other, exactly as they are served |
| index, 44 bytes a bundle | end offset in the entries(8), CRC of the bundle(4), its tree root(32) |
| checkpoint | length(2) and the checkpoint signed at the size where this segment ends |
| footer, 40 bytes | root of the segment(32), CRC of index to root(4), end mark(4) |

Rules kept: every byte is under a checksum and the file ends where its footer does. A bundle is
one slice of the file, the bundle roots in order are the level-1 tile, the segment root is one
level-2 hash, and level-0 tiles are the leaf hashes of a bundle: every path of
c2sp.org/tlog-tiles can be served, and no loose tile files exist (a day of 10 million events
would make 78,000 of them).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from zlib import crc32

from chartgate.errors import Corrupt, Refused
from chartgate.tlog.tile import TILE_WIDTH, MalformedBundle, decode_bundle, encode_bundle
from chartgate.tlog.tree import leaf_hash, tree_root

SEGMENT_LEAVES = 65_536
MAGIC = b"CGSEG\x01\r\n"
END_MARK = b"gesC"

_HEADER = Struct(">8sQIQ")
_CRC = Struct(">I")
_INDEX = Struct(">QI32s")
_LENGTH = Struct(">H")
_FOOTER = Struct(">32sI4s")
HEADER_BYTES = _HEADER.size + _CRC.size


class MalformedSegment(Corrupt):
    """Bytes that are not a whole segment; ``offset`` is where in the file."""

    code = "malformed_segment"

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"at offset {offset}: {reason}")
        self.offset = offset
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Bundle:
    """Where a bundle stands in the file, and what its bytes and its leaves amount to."""

    first: int
    count: int
    start: int
    end: int
    checksum: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """What stands first: enough to know where the index is."""

    first: int
    leaves: int
    body: int

    @property
    def index_offset(self) -> int:
        return HEADER_BYTES + self.body


@dataclass(frozen=True, slots=True)
class Segment:
    """All of a segment but its entries."""

    first: int
    bundles: tuple[Bundle, ...]
    checkpoint: str
    root: bytes

    @property
    def leaves(self) -> int:
        return sum(bundle.count for bundle in self.bundles)

    def level_1_tile(self) -> bytes:
        """The tile of level 1 that this segment fills."""
        return b"".join(bundle.root for bundle in self.bundles)


def check_leaves(leaves: int) -> None:
    """A segment is a perfect subtree."""
    if leaves < 2 or leaves & (leaves - 1):
        raise Refused("a segment holds a power of two of leaves")


def pack(first: int, entries: Sequence[bytes], checkpoint: str) -> bytes:
    """The file for these entries; ``checkpoint`` is signed at size ``first + len(entries)``."""
    check_leaves(len(entries))
    body: list[bytes] = []
    index: list[bytes] = []
    roots: list[bytes] = []
    end = 0
    for start in range(0, len(entries), TILE_WIDTH):
        run = entries[start : start + TILE_WIDTH]
        data = encode_bundle(run)
        end += len(data)
        root = tree_root([leaf_hash(entry) for entry in run])
        body.append(data)
        roots.append(root)
        index.append(_INDEX.pack(end, crc32(data), root))
    header = _HEADER.pack(MAGIC, first, len(entries), end)
    text = checkpoint.encode()
    tail = b"".join((*index, _LENGTH.pack(len(text)), text))
    root = tree_root(roots)
    footer = _FOOTER.pack(root, crc32(tail + root), END_MARK)
    return b"".join((header, _CRC.pack(crc32(header)), *body, tail, footer))


def parse_header(data: bytes) -> Header:
    """Read the first 32 bytes of the file."""
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        raise MalformedSegment(0, "no segment begins here")
    _, first, leaves, body = _HEADER.unpack_from(data)
    if _CRC.unpack_from(data, _HEADER.size)[0] != crc32(data[: _HEADER.size]):
        raise MalformedSegment(0, "the segment header fails its checksum")
    if leaves < 2 or leaves & (leaves - 1) or first % leaves:
        raise MalformedSegment(0, "a segment is a perfect subtree at its place in the tree")
    return Header(first, leaves, body)


def parse_tail(header: Header, tail: bytes) -> Segment:
    """Read what stands behind the entries, from ``header.index_offset`` to the end of the file."""
    at = header.index_offset
    count = -(-header.leaves // TILE_WIDTH)
    text_at = count * _INDEX.size + _LENGTH.size
    if len(tail) < text_at + _FOOTER.size:
        raise MalformedSegment(at + len(tail), "the segment ends before its footer")
    footer_at = text_at + _LENGTH.unpack_from(tail, text_at - _LENGTH.size)[0]
    if len(tail) != footer_at + _FOOTER.size:
        raise MalformedSegment(at, "the index or the length of the segment is damaged")
    root, checksum, mark = _FOOTER.unpack_from(tail, footer_at)
    if mark != END_MARK:
        raise MalformedSegment(at + footer_at + 36, "the end mark of the segment is damaged")
    if crc32(tail[:footer_at] + root) != checksum:
        raise MalformedSegment(at, "the index of the segment fails its checksum")
    bundles = tuple(_bundles(header, tail))
    if tree_root([bundle.root for bundle in bundles]) != root:
        raise MalformedSegment(at + footer_at, "the bundle roots do not give the segment root")
    try:
        text = tail[text_at:footer_at].decode()
    except UnicodeDecodeError as exc:
        raise MalformedSegment(at + text_at, "a checkpoint that is not UTF-8") from exc
    return Segment(header.first, bundles, text, root)


def _bundles(header: Header, tail: bytes) -> Iterator[Bundle]:
    start = 0
    for number, done in enumerate(range(0, header.leaves, TILE_WIDTH)):
        end, checksum, root = _INDEX.unpack_from(tail, number * _INDEX.size)
        if end < start:
            raise MalformedSegment(header.index_offset, "bundle offsets do not rise")
        count = min(TILE_WIDTH, header.leaves - done)
        place = (HEADER_BYTES + start, HEADER_BYTES + end)
        yield Bundle(header.first + done, count, *place, checksum, root)
        start = end
    if start != header.body:
        raise MalformedSegment(header.index_offset, "the bundles do not fill the segment")


def open_bundle(bundle: Bundle, data: bytes) -> tuple[bytes, ...]:
    """The entries of a bundle from its slice of the file; checksum only, see ``verify_bundle``."""
    if len(data) != bundle.end - bundle.start or crc32(data) != bundle.checksum:
        raise MalformedSegment(
            bundle.start, f"the bundle of entries from {bundle.first} on fails its checksum"
        )
    try:
        return decode_bundle(data, bundle.count)
    except MalformedBundle as exc:
        raise MalformedSegment(bundle.start, str(exc)) from exc


def verify_bundle(bundle: Bundle, entries: Sequence[bytes]) -> None:
    """Raise unless these entries are those that the bundle's root was computed over."""
    if tree_root([leaf_hash(entry) for entry in entries]) != bundle.root:
        raise MalformedSegment(
            bundle.start, f"the entries from {bundle.first} on do not give their tree root"
        )
