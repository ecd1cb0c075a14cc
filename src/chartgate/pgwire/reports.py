"""Errors and notices: fields by code letter (PostgreSQL documentation, 55.8).

The one tolerance of the codec: texts that are not UTF-8 (a server writes them in its own locale
before the session's encoding is settled) are read with replacement characters, since losing an
error is worse than losing an accent.
"""

from dataclasses import dataclass

from chartgate.pgwire import body as wire
from chartgate.pgwire.body import Body
from chartgate.pgwire.violation import ProtocolViolation


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """A statement failed: fields by their code letter (S, V, C, M, D, H, …)."""

    fields: dict[str, str]

    @property
    def severity(self) -> str:
        """Not localised (V), for servers since 9.6."""
        return self.fields.get("V") or self.fields.get("S", "")

    @property
    def sqlstate(self) -> str:
        return self.fields.get("C", "")

    @property
    def message(self) -> str:
        return self.fields.get("M", "")

    def encode(self) -> bytes:
        return wire.message(b"E", _encode_fields(self.fields))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class NoticeResponse:
    """A remark, with the fields of an error."""

    fields: dict[str, str]

    @property
    def message(self) -> str:
        return self.fields.get("M", "")

    def encode(self) -> bytes:
        return wire.message(b"N", _encode_fields(self.fields))

    __bytes__ = encode


def error(
    sqlstate: str,
    message: str,
    *,
    severity: str = "ERROR",
    detail: str | None = None,
    hint: str | None = None,
) -> bytes:
    """An ErrorResponse of our own, as bytes. It always succeeds: what cannot stand is replaced."""
    return ErrorResponse(_own_fields(severity, sqlstate, message, detail, hint)).encode()


def notice(
    message: str, *, detail: str | None = None, hint: str | None = None, sqlstate: str = "00000"
) -> bytes:
    """A NoticeResponse of our own, as bytes."""
    return NoticeResponse(_own_fields("NOTICE", sqlstate, message, detail, hint)).encode()


def _own_fields(
    severity: str, sqlstate: str, message: str, detail: str | None, hint: str | None
) -> dict[str, str]:
    given = {"S": severity, "V": severity, "C": sqlstate, "M": message, "D": detail, "H": hint}
    return {
        code: value.replace("\0", "�").encode("utf-8", "replace").decode()
        for code, value in given.items()
        if value is not None
    }


def _encode_fields(fields: dict[str, str]) -> bytes:
    parts: list[bytes] = []
    for code, value in fields.items():
        if len(code) != 1 or not "\0" < code < "\x80":
            raise ProtocolViolation("an error field code is not one ASCII character")
        parts += (code.encode(), wire.text(value))
    return b"".join(parts) + b"\0"


def read_fields(reader: Body) -> dict[str, str]:
    """The fields under the cursor, up to their end mark."""
    fields: dict[str, str] = {}
    while code := reader.u8():
        letter = chr(code)
        if code >= 0x80 or letter in fields:
            raise ProtocolViolation("an error field code is repeated or not ASCII")
        fields[letter] = reader.text(errors="replace")
    return fields
