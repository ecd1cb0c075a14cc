"""Tiles and entry bundles (c2sp.org/tlog-tiles v0.1.0): paths, widths, encoding.

Rules kept: a full tile has 256 hashes and is never changed; a partial tile says its width; an
empty tile does not exist; an entry is at most 65,535 bytes (its length is a big-endian uint16).
"""

from collections.abc import Iterable, Sequence
from struct import Struct

from chartgate.errors import Corrupt, Refused

TILE_WIDTH = 256
MAX_LEVEL = 63
MAX_ENTRY = 0xFFFF

_LENGTH = Struct(">H")


class MalformedBundle(Corrupt):
    """Bytes that are not an entry bundle."""

    code = "malformed_bundle"


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """``tile/<L>/<N>[.p/<W>]``."""
    if not 0 <= level <= MAX_LEVEL:
        raise Refused(f"a tile level is 0 to {MAX_LEVEL}")
    return f"tile/{level}/{_number(index)}{_partial(width)}"


def bundle_path(index: int, width: int = TILE_WIDTH) -> str:
    """``tile/entries/<N>[.p/<W>]``."""
    return f"tile/entries/{_number(index)}{_partial(width)}"


def partial_width(level: int, size: int) -> int:
    """Hashes in the last, partial tile of a level in a tree of ``size``; 0: there is none."""
    return int((size >> (8 * level)) % TILE_WIDTH)


def full_tiles(level: int, size: int) -> int:
    """Number of full tiles of a level in a tree of ``size``."""
    return size >> (8 * (level + 1))


def encode_entry(entry: bytes) -> bytes:
    """uint16 length, entry."""
    if len(entry) > MAX_ENTRY:
        raise Refused(f"a log entry has at most {MAX_ENTRY} bytes, this one has {len(entry)}")
    return _LENGTH.pack(len(entry)) + entry


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """The entries one after the other, each behind its length."""
    return b"".join(map(encode_entry, entries))


def decode_bundle(data: bytes | memoryview, count: int) -> tuple[bytes, ...]:
    """Exactly ``count`` entries and nothing after them."""
    view, offset = memoryview(data), 0
    entries: list[bytes] = []
    for _ in range(count):
        if offset + 2 > len(view):
            raise MalformedBundle(f"the bundle ends within entry {len(entries)}")
        end = offset + 2 + _LENGTH.unpack_from(view, offset)[0]
        if end > len(view):
            raise MalformedBundle(f"the bundle ends within entry {len(entries)}")
        entries.append(bytes(view[offset + 2 : end]))
        offset = end
    if offset != len(view):
        raise MalformedBundle("bytes after the last entry of a bundle")
    return tuple(entries)


def encode_tile(hashes: Sequence[bytes]) -> bytes:
    """The tile's hashes, one after the other."""
    if not 0 < len(hashes) <= TILE_WIDTH:
        raise Refused(f"a tile has 1 to {TILE_WIDTH} hashes")
    return b"".join(hashes)


def _number(index: int) -> str:
    if index < 0:
        raise Refused("a tile number is not negative")
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    return "/".join(reversed(groups))


def _partial(width: int) -> str:
    if not 0 < width <= TILE_WIDTH:
        raise Refused(f"a tile has 1 to {TILE_WIDTH} hashes")
    return "" if width == TILE_WIDTH else f".p/{width}"
