"""A message body, read and written strictly: every byte is accounted for.

Integers are big-endian; strings end in NUL and are UTF-8, so no text can carry a NUL inside
(PostgreSQL documentation, "Message Data Types"). Reading past the end, or stopping before it,
is a ``ProtocolViolation``; ``struct.error`` and ``IndexError`` never leave this module.
"""

from struct import Struct
from typing import Final

from chartgate.pgwire.violation import ProtocolViolation

_U16: Final = Struct(">H")
_I16: Final = Struct(">h")
_U32: Final = Struct(">I")
_I32: Final = Struct(">i")


class Body:
    """A cursor over one message body."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        stop = self._at + count
        if count < 0 or stop > len(self._data):
            raise ProtocolViolation("a message ends before its fields do")
        piece = self._data[self._at : stop]
        self._at = stop
        return piece

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int(_U16.unpack(self.take(2))[0])

    def i16(self) -> int:
        return int(_I16.unpack(self.take(2))[0])

    def u32(self) -> int:
        return int(_U32.unpack(self.take(4))[0])

    def i32(self) -> int:
        return int(_I32.unpack(self.take(4))[0])

    def text(self, *, errors: str = "strict") -> str:
        """A NUL-terminated UTF-8 string."""
        stop = self._data.find(b"\0", self._at)
        if stop < 0:
            raise ProtocolViolation("a string has no end")
        piece = self._data[self._at : stop]
        self._at = stop + 1
        try:
            return piece.decode("utf-8", errors)
        except UnicodeDecodeError as exc:
            raise ProtocolViolation("a string is not valid UTF-8") from exc

    def value(self) -> bytes | None:
        """A length-prefixed value; length -1 is NULL, any other negative length is illegal."""
        size = self.i32()
        if size == -1:
            return None
        return self.take(size)

    def format_code(self) -> int:
        """0 (text) or 1 (binary)."""
        code = self.i16()
        if code not in (0, 1):
            raise ProtocolViolation("a format code is neither text nor binary")
        return code

    def rest(self) -> bytes:
        """Everything not yet read."""
        piece = self._data[self._at :]
        self._at = len(self._data)
        return piece

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._data):
            raise ProtocolViolation("a message goes on after its fields")


def message(kind: bytes, *parts: bytes) -> bytes:
    """One typed message: kind, length that includes itself, body."""
    body = b"".join(parts)
    return kind + u32(len(body) + 4) + body


def text(value: str) -> bytes:
    """A NUL-terminated string; one that holds a NUL would become two on the wire."""
    if "\0" in value:
        raise ProtocolViolation("a string holds a NUL")
    try:
        return value.encode() + b"\0"
    except UnicodeEncodeError as exc:
        raise ProtocolViolation("a string cannot be written as UTF-8") from exc


def u16(value: int) -> bytes:
    return _ranged(_U16, value, 0, 0xFFFF)


def i16(value: int) -> bytes:
    return _ranged(_I16, value, -0x8000, 0x7FFF)


def u32(value: int) -> bytes:
    return _ranged(_U32, value, 0, 0xFFFF_FFFF)


def i32(value: int) -> bytes:
    return _ranged(_I32, value, -0x8000_0000, 0x7FFF_FFFF)


def sized(value: bytes | None) -> bytes:
    """A value with its length, or NULL."""
    if value is None:
        return b"\xff\xff\xff\xff"
    return i32(len(value)) + value


def _ranged(form: Struct, value: int, low: int, high: int) -> bytes:
    if not low <= value <= high:
        raise ProtocolViolation("a number does not fit its field")
    return form.pack(value)
