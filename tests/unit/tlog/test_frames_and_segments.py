"""WAL frames and packed segments as bytes: what is torn, what is damaged, what is served."""

from hashlib import sha256
from zlib import crc32

import pytest

from chartgate.errors import Refused
from chartgate.tlog import segment, tile, wal
from chartgate.tlog.tree import Frontier, leaf_hash, split, tree_root

HEAD = bytes(wal.Head(8, 4, "checkpoint at 8"))
ONE = bytes(wal.Commit(8, (b"a", b"", b"c"), "checkpoint at 11"))
TWO = bytes(wal.Commit(11, (b"d",), "checkpoint at 12"))


def test_frames_are_read_back_where_they_stand():
    frames, end = wal.scan(HEAD + ONE + TWO)
    assert end == wal.Clean()
    assert [bytes(placed.frame) for placed in frames] == [HEAD, ONE, TWO]
    assert [placed.offset for placed in frames] == [0, len(HEAD), len(HEAD + ONE)]
    frames, end = wal.scan(TWO + b"\xc9", base=1000)
    assert (frames[0].offset, end) == (1000, wal.Torn(1000 + len(TWO)))
    assert wal.scan(b"") == ((), wal.Clean())


def test_a_tail_cut_anywhere_is_torn_and_never_damaged():
    for cut in range(1, len(TWO)):
        frames, end = wal.scan(ONE + TWO[:cut])
        assert (len(frames), end) == (1, wal.Torn(len(ONE)))


def test_any_flipped_bit_of_a_whole_frame_is_damage_at_that_frame():
    for at in range(len(TWO) * 8):
        bad = bytearray(TWO)
        bad[at // 8] ^= 1 << at % 8
        frames, end = wal.scan(ONE + bytes(bad))
        assert len(frames) == 1
        assert isinstance(end, wal.Damaged)
        assert end.offset == len(ONE)


def test_zeros_to_the_end_are_the_end_and_garbage_is_not():
    assert wal.scan(ONE + bytes(100_000))[1] == wal.Clean()
    assert isinstance(wal.scan(ONE + bytes(100) + b"x")[1], wal.Damaged)
    assert isinstance(wal.scan(ONE + b"x")[1], wal.Damaged)


def test_frames_with_good_checksums_and_bad_payloads_are_damage():
    for kind, payload in [
        (wal.HEAD, b""),
        (wal.HEAD, b"\x02" + bytes(12)),
        (wal.HEAD, b"\x01" + bytes(12) + b"\xff"),
        (wal.COMMIT, b""),
        (wal.COMMIT, bytes(14)),
        (wal.COMMIT, bytes(8) + b"\0\0\0\1" + b"\0\xff" + b"\0\0"),
        (wal.COMMIT, bytes(8) + b"\0\0\0\1" + b"\0\0" + b"\0\5a"),
        (wal.COMMIT, bytes(8) + b"\0\0\0\1" + b"\0\0" + b"\0\1ab"),
        (9, b"unknown type"),
    ]:
        assert isinstance(wal.scan(wal._frame(kind, payload))[1], wal.Damaged)


def test_a_frame_too_large_to_be_one_is_refused():
    with pytest.raises(Refused):
        wal._frame(wal.COMMIT, bytes(wal.MAX_PAYLOAD + 1))


@pytest.mark.parametrize("leaves", [2, 256, 512, 1024])
def test_a_segment_serves_bundles_the_level_1_tile_and_its_root(leaves):
    entries = [b"entry %d" % i for i in range(leaves)]
    data = segment.pack(3 * leaves, entries, "signed")
    header = segment.parse_header(data[: segment.HEADER_BYTES])
    packed = segment.parse_tail(header, data[header.index_offset :])
    assert (packed.first, packed.leaves, packed.checkpoint) == (3 * leaves, leaves, "signed")
    hashes = [leaf_hash(entry) for entry in entries]
    assert packed.root == tree_root(hashes)
    assert packed.level_1_tile() == tile.encode_tile(
        [tree_root(hashes[at : at + 256]) for at in range(0, leaves, 256)]
    )
    for number, bundle in enumerate(packed.bundles):
        mine = entries[number * 256 : (number + 1) * 256]
        raw = data[bundle.start : bundle.end]
        assert raw == tile.encode_bundle(mine), "a bundle is served as it stands in the file"
        assert segment.open_bundle(bundle, raw) == tuple(mine)
        segment.verify_bundle(bundle, mine)
        with pytest.raises(segment.MalformedSegment, match="tree root"):
            segment.verify_bundle(bundle, mine[::-1])


def _read_all(data: bytes) -> None:
    header = segment.parse_header(data[: segment.HEADER_BYTES])
    packed = segment.parse_tail(header, data[header.index_offset :])
    for bundle in packed.bundles:
        segment.open_bundle(bundle, data[bundle.start : bundle.end])


def test_a_segment_shows_every_flipped_bit_every_cut_and_every_addition():
    data = segment.pack(4, [b"a", b"bb", b"", b"dddd"], "signed")
    _read_all(data)
    for at in range(len(data) * 8):
        bad = bytearray(data)
        bad[at // 8] ^= 1 << at % 8
        with pytest.raises(segment.MalformedSegment):
            _read_all(bytes(bad))
    for cut in range(len(data)):
        with pytest.raises(segment.MalformedSegment):
            _read_all(data[:cut])
    with pytest.raises(segment.MalformedSegment):
        _read_all(data + b"\0")


ENTRIES = 32
"""Where the entries begin in the file."""
INDEX = 44
"""Bytes of the index for each bundle."""


def _forge(data: bytes, at: int, new: bytes) -> bytes:
    """Change bytes behind the entries and make the checksum of that part right again."""
    header = segment.parse_header(data[:ENTRIES])
    bad = bytearray(data)
    bad[at : at + len(new)] = new
    tail = bytes(bad[header.index_offset : -8])
    bad[-8:-4] = crc32(tail).to_bytes(4, "big")
    return bytes(bad)


def test_a_segment_with_good_checksums_and_a_bad_index_is_found():
    data = segment.pack(0, [b"%d" % i for i in range(512)], "signed")
    index = segment.parse_header(data[:ENTRIES]).index_offset
    text = index + 2 * INDEX + 2
    first_end = data[index : index + 8]
    for bad, reason in (
        (_forge(data, index + 12, bytes(32)), "bundle roots"),
        (_forge(data, index + INDEX, bytes(8)), "do not rise"),
        (_forge(data, index + INDEX, first_end), "do not fill"),
        (_forge(data, text, b"\xff"), "UTF-8"),
        (_forge(data, len(data) - 40, bytes(32)), "bundle roots"),
    ):
        with pytest.raises(segment.MalformedSegment, match=reason):
            _read_all(bad)
    bad = bytearray(data[:28])
    bad[19] = 3  # leaves: 515
    with pytest.raises(segment.MalformedSegment, match="perfect subtree"):
        _read_all(bytes(bad) + crc32(bad).to_bytes(4, "big") + data[32:])
    wrong = bytearray(data)
    wrong[ENTRIES + 1] = 9  # the length of the first entry
    body = crc32(wrong[ENTRIES : ENTRIES + int.from_bytes(first_end, "big")]).to_bytes(4, "big")
    with pytest.raises(segment.MalformedSegment, match="bundle"):
        _read_all(_forge(bytes(wrong), index + 8, body))


def test_only_perfect_subtrees_become_segments():
    for entries in ([], [b"a"], [b"a", b"b", b"c"]):
        with pytest.raises(Refused):
            segment.pack(0, entries, "")


def test_subtrees_are_appended_only_where_they_fit():
    hashes = [leaf_hash(b"%d" % i) for i in range(12)]
    grown = Frontier().append_subtree(tree_root(hashes[:4]), 4)
    grown = grown.append_subtree(tree_root(hashes[4:8]), 4)
    assert grown == Frontier().extend(hashes[:8])
    assert grown.append(hashes[8]).root() == tree_root(hashes[:9])
    for leaves in (0, 3, 16):
        with pytest.raises(Refused):
            grown.append_subtree(bytes(32), leaves)
    assert Frontier().root() == sha256(b"").digest()
    with pytest.raises(Refused):
        split(1)


def test_bundles_hold_exactly_their_entries():
    data = tile.encode_bundle([b"a", b"bc"])
    assert data == b"\0\1a\0\2bc"
    assert tile.decode_bundle(data, 2) == (b"a", b"bc")
    for bad, count in ((data, 1), (data, 3), (data[:-1], 2), (data + b"\0", 3)):
        with pytest.raises(tile.MalformedBundle):
            tile.decode_bundle(bad, count)
    with pytest.raises(Refused):
        tile.encode_entry(bytes(65_536))


def test_tiles_that_do_not_exist_have_no_path():
    assert tile.tile_path(2, 1_234_067, 1) == "tile/2/x001/x234/067.p/1"
    assert [tile.partial_width(level, 70_000) for level in range(4)] == [112, 17, 1, 0]
    assert (tile.full_tiles(0, 70_000), tile.full_tiles(1, 70_000)) == (273, 1)
    for call in (
        lambda: tile.tile_path(64, 0),
        lambda: tile.tile_path(-1, 0),
        lambda: tile.tile_path(0, -1),
        lambda: tile.bundle_path(0, 0),
        lambda: tile.bundle_path(0, 257),
        lambda: tile.encode_tile([]),
    ):
        with pytest.raises(Refused):
            call()
