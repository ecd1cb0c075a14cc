"""What a loss of power leaves of a write that was not synced, and what it never leaves."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.tlog import wal

HEAD = bytes(wal.Head(0, 1024, "checkpoint at 0\n"))
ONE = bytes(wal.Commit(0, (b"a" * 300, b"b" * 700), "checkpoint at 2\n"))
RUN = bytes(wal.Entries(2, (b"c" * 900,), 2))
MORE = bytes(wal.Entries(3, (b"d" * 40, b"e"), 2))
SEAL = bytes(wal.Commit(5, (b"f" * 600,), "checkpoint at 6\n", 2))
BARE_SEAL = bytes(wal.Commit(5, (), "checkpoint at 5\n", 2))
TWO = bytes(wal.Commit(6, (b"g" * 1300,), "checkpoint at 7\n"))
ROOM = bytes(2000)


def test_entries_and_their_seal_are_read_back_where_they_stand():
    for whole in (HEAD + ONE + RUN + MORE + SEAL + TWO, HEAD + ONE + RUN + MORE + BARE_SEAL):
        for tail in (b"", ROOM):
            frames, end = wal.scan(whole + tail)
            assert end == wal.Clean()
            assert b"".join(bytes(placed.frame) for placed in frames) == whole


def sectors_of(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """The sectors between two offsets, as pairs of offsets."""
    borders = [start, *range((start // 512 + 1) * 512, end, 512), end]
    return list(itertools.pairwise(borders))


def without(data: bytes, lost: list[tuple[int, int]]) -> bytes:
    left = bytearray(data)
    for start, end in lost:
        left[start:end] = bytes(end - start)
    return bytes(left)


@given(st.data())
def test_sectors_of_the_last_commit_lost_in_any_order_are_torn(data):
    before = HEAD + ONE
    size = len(before) + len(TWO)
    whole = before + bytes(wal.Commit(2, (b"g" * 1300,), "checkpoint at 3\n")) + ROOM
    sectors = sectors_of(whole, len(before), size)
    lost = data.draw(st.lists(st.sampled_from(sectors), min_size=1, unique=True))
    frames, end = wal.scan(without(whole, lost))
    assert len(frames) == 2
    assert end in (wal.Torn(len(before)), wal.Clean())
    assert isinstance(end, wal.Torn) or len(lost) == len(sectors)


@given(st.data())
def test_of_an_unsynced_run_what_stands_before_the_first_loss_is_kept(data):
    before, run = HEAD + ONE, [RUN, MORE, SEAL]
    whole = before + b"".join(run) + ROOM
    size = len(whole) - len(ROOM)
    sectors = sectors_of(whole, len(before), size)
    lost = data.draw(st.lists(st.sampled_from(sectors), min_size=1, unique=True))
    first = min(start for start, _ in lost)
    ends = [len(before)]
    for frame in run:
        ends.append(ends[-1] + len(frame))
    kept = max(i for i, end in enumerate(ends) if end <= first)
    frames, end = wal.scan(without(whole, lost))
    assert len(frames) == 2 + kept
    if any(any(byte) for byte in [without(whole, lost)[ends[kept] :]]):
        assert end == wal.Torn(ends[kept])
    else:
        assert end == wal.Clean()


@pytest.mark.parametrize(
    "after",
    [
        TWO,  # a commit is written when everything before it was synced
        bytes(wal.Entries(6, (b"x" * 20,), 6)),  # a run that began behind it
        bytes(wal.Commit(7, (b"x",), "checkpoint at 8\n", 6)),
    ],
    ids=["commit", "later run", "seal of a later run"],
)
@pytest.mark.parametrize("place", [ONE, RUN, SEAL])
def test_a_lost_sector_of_what_was_synced_is_damage(after, place):
    whole = HEAD + ONE + RUN + MORE + SEAL
    start = whole.index(place)
    data = whole + after + ROOM
    for lost in sectors_of(data, start, start + len(place)):
        if lost[1] - lost[0] < 16:
            continue
        _, end = wal.scan(without(data, [lost]))
        assert isinstance(end, wal.Damaged), lost


def test_a_beginning_with_zeros_behind_it_is_torn():
    before = HEAD + ONE
    for frame in (bytes(wal.Commit(2, (b"g" * 90,), "checkpoint at 3\n")), RUN[:60] + b"x"):
        for cut in range(1, len(frame) - 1):
            frames, end = wal.scan(before + frame[:cut] + ROOM)
            assert (len(frames), end) == (2, wal.Torn(len(before)))


def test_any_flipped_bit_of_a_run_is_damage_at_its_frame():
    rng = random.Random(4)
    before = HEAD + ONE
    whole = before + RUN + MORE + SEAL
    for _ in range(400):
        at = rng.randrange(len(before), len(whole))
        bad = bytearray(whole)
        bad[at] ^= 1 << rng.randrange(8)
        _, end = wal.scan(bytes(bad) + ROOM)
        assert isinstance(end, wal.Damaged)


def test_runs_whose_parts_do_not_add_up_are_damage():
    for frame in (
        wal.Entries(2, (), 2),
        wal.Entries(2, (b"a",), 3),
        wal.Commit(2, (b"a",), "c\n", 2),
        wal.Commit(2, (), "c\n"),
    ):
        assert isinstance(wal.scan(bytes(frame))[1], wal.Damaged)
    for kind, payload in [(wal.ENTRIES, b"\n"), (wal.ENTRIES, bytes(21)), (wal.SEAL, b"x")]:
        assert isinstance(wal.scan(wal._frame(kind, payload))[1], wal.Damaged)


def test_a_run_ends_with_its_own_seal():
    commit, run = wal.Commit(5, (b"a",), "c\n"), wal.Entries(5, (b"a",), 5)
    assert wal.follows(commit, 5, 5)
    assert wal.follows(run, 5, 5)
    assert not wal.follows(commit, 4, 5)
    assert not wal.follows(run, 4, 5)
    assert not wal.follows(run, 6, 6)
    assert wal.follows(wal.Commit(5, (), "c\n", 4), 4, 5)
    assert not wal.follows(wal.Commit(5, (), "c\n", 4), 5, 5)
