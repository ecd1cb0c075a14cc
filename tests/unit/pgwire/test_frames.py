"""Frames: a length is believed only after it is checked."""

import pytest

from chartgate.pgwire.frames import Frame, FrameReader, Run, split
from chartgate.pgwire.rows import strip_run
from chartgate.pgwire.violation import ProtocolViolation

SYNC = b"S\0\0\0\4"
ROW = b"D\0\0\0\x0b\0\1\0\0\0\1x"


def fed(*chunks: bytes, cap: int = 64) -> FrameReader:
    reader = FrameReader(max_frame=cap)
    for chunk in chunks:
        reader.feed(chunk)
    return reader


def test_frames_come_without_and_with_their_header():
    assert fed(SYNC + ROW).frames() == [Frame(ord("S"), b""), Frame(ord("D"), ROW[5:])]
    assert fed(SYNC + ROW).take() == [(ord("S"), SYNC), (ord("D"), ROW)]


def test_neighbouring_rows_are_one_slice():
    assert fed(SYNC + ROW * 3 + SYNC * 2, ROW[:4]).runs() == [
        Run(ord("S"), SYNC, 1),
        Run(ord("D"), ROW * 3, 3),
        Run(ord("S"), SYNC, 1),
        Run(ord("S"), SYNC, 1),
    ]


def test_what_is_incomplete_waits_and_can_be_taken_out():
    reader = fed(SYNC + ROW[:7])
    assert reader.take() == [(ord("S"), SYNC)]
    assert (reader.take(), reader.runs(), reader.frames()) == ([], [], [])
    assert reader.pending == 7
    reader.feed(ROW[7:9])
    assert reader.rest() == ROW[:9]
    assert reader.pending == 0
    reader.feed(b"")
    reader.feed(SYNC)
    assert reader.runs() == [Run(ord("S"), SYNC, 1)]


@pytest.mark.parametrize("length", [0, 3, 65, 2**31, 2**32 - 1])
@pytest.mark.parametrize("method", ["take", "runs", "frames"])
def test_an_impossible_length_is_refused_at_the_header_and_for_good(length, method):
    reader = fed(SYNC, b"D" + length.to_bytes(4, "big"))
    with pytest.raises(ProtocolViolation, match="length"):
        getattr(reader, method)()
    assert reader.pending == 0
    reader.feed(SYNC)
    with pytest.raises(ProtocolViolation, match="broken"):
        getattr(reader, method)()


def test_a_message_as_long_as_the_cap_passes():
    whole = b"d" + (64).to_bytes(4, "big") + b"x" * 60
    assert fed(whole).take() == [(ord("d"), whole)]


def test_a_long_message_in_many_chunks_is_put_together():
    whole = b"d" + (200_004).to_bytes(4, "big") + b"x" * 200_000
    reader = FrameReader()
    got = []
    for at in range(0, len(whole), 1000):
        reader.feed(whole[at : at + 1000])
        got += reader.take()
    assert got == [(ord("d"), whole)]


def test_a_run_that_ends_inside_a_message_is_a_violation():
    with pytest.raises(ProtocolViolation):
        split(ROW + ROW[:-1])
    with pytest.raises(ProtocolViolation):
        strip_run(ROW + ROW[:-1], 1)


@pytest.mark.parametrize(
    "row",
    [
        SYNC + b"\0\0",
        b"D\0\0\0\x0a\0\1\xff\xff\xff\xfe",
        b"D\0\0\0\x0b\0\1\0\0\0\2x",
        b"D\0\0\0\x0c\0\1\0\0\0\1xy",
        b"D\0\0\0\4",
        b"D\0\0\0\x0b\0\1\0\0\0\2x" + ROW,  # a value that reaches into the next row
    ],
)
@pytest.mark.parametrize("keep", [0, 1])
def test_a_row_that_does_not_add_up_is_a_violation(row, keep):
    with pytest.raises(ProtocolViolation):
        strip_run(row, keep)
