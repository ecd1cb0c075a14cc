"""Parameter values for the audit: one spelling per value, or not understood."""

import struct

import pytest

from chartgate.pgwire.values import text_of

U = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


@pytest.mark.parametrize(
    ("oid", "raw", "text"),
    [
        (0, b"42", "42"),
        (25, b"M\xc3\xbcller ", "Müller "),
        (1043, b"x", "x"),
        (19, b"x", "x"),
        (705, b" x", " x"),
        (1042, b"MRN1   ", "MRN1"),
        (23, b" +0042\n", "42"),
        (21, b"-32768", "-32768"),
        (21, b"32768", None),
        (23, b"4_2", None),
        (23, b"0x2a", None),
        (23, b"4.0", None),
        (23, "٤".encode(), None),
        (20, b"9223372036854775807", "9223372036854775807"),
        (20, b"9" * 50, None),
        (16, b" TRUE ", "true"),
        (16, b"of", "false"),
        (16, b"maybe", None),
        (1082, b"2026-02-28", "2026-02-28"),
        (1082, b"2026-02-30", None),
        (1082, b"28.02.2026", None),
        (2950, U.upper().encode(), U),
        (2950, b"{" + U.encode() + b"}", U),
        (2950, U.replace("-", "").encode(), U),
        (2950, b"6ba7b810", None),
        (25, b"\xff", None),
        (25, b"a\0b", None),
        (600, b"(1,2)", None),
    ],
)
def test_a_text_value_has_one_spelling(oid, raw, text):
    assert text_of(oid, 0, raw) == text


@pytest.mark.parametrize(
    ("oid", "raw", "text"),
    [
        (25, b"x", "x"),
        (1042, b"x  ", "x"),
        (25, b"\xff", None),
        (21, struct.pack(">h", -2), "-2"),
        (23, struct.pack(">i", 42), "42"),
        (20, struct.pack(">q", -(2**63)), str(-(2**63))),
        (23, b"\0\0\0", None),
        (16, b"\1", "true"),
        (16, b"\0", "false"),
        (16, b"\2", None),
        (1082, struct.pack(">i", 0), "2000-01-01"),
        (1082, struct.pack(">i", -36525), "1899-12-31"),
        (1082, struct.pack(">i", 2**31 - 1), None),
        (1082, b"", None),
        (2950, bytes.fromhex(U.replace("-", "")), U),
        (2950, b"x", None),
        (0, b"42", None),
        (600, b"x" * 16, None),
    ],
)
def test_a_binary_value_has_the_same_spelling(oid, raw, text):
    assert text_of(oid, 1, raw) == text


def test_an_unknown_format_is_not_understood():
    assert text_of(25, 2, b"x") is None
