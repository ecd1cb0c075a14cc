"""Parameter values as text, for the audit: one spelling per value, or None.

Used to see which patients a statement *sought*: ``42``, ``+42`` and four binary bytes must give
the same token. What is not understood gives None, and the caller records that it was not; nothing
here guesses. Types by their fixed OIDs (PostgreSQL, ``pg_type.dat``).
"""

import re
from datetime import date, timedelta
from typing import Final

BOOL: Final = 16
NAME: Final = 19
INT8: Final = 20
INT2: Final = 21
INT4: Final = 23
TEXT: Final = 25
UNKNOWN: Final = 705
BPCHAR: Final = 1042
VARCHAR: Final = 1043
DATE: Final = 1082
UUID: Final = 2950

_TEXTS: Final = frozenset((TEXT, VARCHAR, BPCHAR, NAME, UNKNOWN))
_INTEGERS: Final = {INT2: 2, INT4: 4, INT8: 8}
_EPOCH: Final = date(2000, 1, 1)
_SPACES: Final = " \t\n\v\f\r"
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_HEX32: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TRUE: Final = frozenset(("t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"))
_FALSE: Final = frozenset(("f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"))


def text_of(oid: int, format: int, value: bytes) -> str | None:  # noqa: A002 — protocol's word
    """``value`` of type ``oid`` in ``format`` (0 text, 1 binary) as text; None = not understood.

    Type 0 is a parameter whose type the server will infer: understood in text format only.
    """
    if format == 0:
        return _from_text(oid, value)
    if format == 1:
        return _from_binary(oid, value)
    return None


def _from_text(oid: int, value: bytes) -> str | None:
    text = _string(value)
    if text is None or oid == 0:
        return text
    if oid in _TEXTS:
        return _padded(oid, text)
    bare = text.strip(_SPACES)
    if oid in _INTEGERS:
        return _integer(bare, _INTEGERS[oid])
    if oid == BOOL:
        word = bare.lower()
        return "true" if word in _TRUE else "false" if word in _FALSE else None
    if oid == DATE:
        return _iso_date(bare)
    if oid == UUID:
        return _uuid(text)
    return None


def _from_binary(oid: int, value: bytes) -> str | None:
    if oid in _TEXTS:
        text = _string(value)
        return None if text is None else _padded(oid, text)
    if oid in _INTEGERS and len(value) == _INTEGERS[oid]:
        return str(int.from_bytes(value, "big", signed=True))
    if oid == BOOL and value in (b"\0", b"\1"):
        return "true" if value == b"\1" else "false"
    if oid == DATE and len(value) == 4:
        return _date_of_days(int.from_bytes(value, "big", signed=True))
    if oid == UUID and len(value) == 16:
        return _uuid(value.hex())
    return None


def _string(value: bytes) -> str | None:
    if b"\0" in value:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _padded(oid: int, text: str) -> str:
    # char(n): trailing blanks have no meaning in comparisons
    return text.rstrip(" ") if oid == BPCHAR else text


def _integer(text: str, size: int) -> str | None:
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    limit = 1 << (8 * size - 1)
    return str(number) if -limit <= number < limit else None


def _iso_date(text: str) -> str | None:
    if not _DATE.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return None


def _date_of_days(days: int) -> str | None:
    try:
        return (_EPOCH + timedelta(days=days)).isoformat()
    except OverflowError:  # infinity, or a year that is not 1 to 9999
        return None


def _uuid(text: str) -> str | None:
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    digits = text.replace("-", "").lower()
    if not _HEX32.fullmatch(digits):
        return None
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
