"""What a client says after startup, decoded strictly (PostgreSQL documentation, 55.7).

Rules kept: SQL text is valid UTF-8 and holds no NUL (the parser would stop there and judge less
than the server runs); every byte of a body belongs to a field; ``encode`` gives back the bytes
that were decoded. Passwords and SCRAM messages never show in ``repr``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from chartgate.pgwire import body as wire
from chartgate.pgwire.body import Body
from chartgate.pgwire.violation import ProtocolViolation


@dataclass(frozen=True, slots=True)
class Query:
    """Simple protocol: run this text."""

    sql: str

    def encode(self) -> bytes:
        return wire.message(b"Q", wire.text(self.sql))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class Parse:
    """Prepare ``sql`` under ``name`` ("" is the unnamed statement); type 0 = the server infers."""

    name: str
    sql: str
    param_types: tuple[int, ...] = ()

    def encode(self) -> bytes:
        types = b"".join(map(wire.u32, self.param_types))
        count = wire.u16(len(self.param_types))
        return wire.message(b"P", wire.text(self.name), wire.text(self.sql), count, types)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class Bind:
    """Make ``portal`` from ``statement`` and parameter values."""

    portal: str
    statement: str
    formats: tuple[int, ...] = ()
    params: tuple[bytes | None, ...] = field(default=(), repr=False)
    result_formats: tuple[int, ...] = ()

    def format_of(self, index: int) -> int:
        """The format of parameter ``index``: no code = text, one code = that for all."""
        if not self.formats:
            return 0
        return self.formats[0] if len(self.formats) == 1 else self.formats[index]

    def encode(self) -> bytes:
        return wire.message(
            b"B",
            wire.text(self.portal),
            wire.text(self.statement),
            wire.u16(len(self.formats)),
            *map(wire.i16, self.formats),
            wire.u16(len(self.params)),
            *map(wire.sized, self.params),
            wire.u16(len(self.result_formats)),
            *map(wire.i16, self.result_formats),
        )

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class Describe:
    """What are the columns of statement (``S``) or portal (``P``) ``name``?"""

    kind: str
    name: str

    def encode(self) -> bytes:
        return wire.message(b"D", _target(self.kind), wire.text(self.name))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class Execute:
    """Run ``portal``; ``max_rows`` of zero or less is no limit, as in the server."""

    portal: str
    max_rows: int = 0

    def encode(self) -> bytes:
        return wire.message(b"E", wire.text(self.portal), wire.i32(self.max_rows))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class Close:
    """Forget statement (``S``) or portal (``P``) ``name``."""

    kind: str
    name: str

    def encode(self) -> bytes:
        return wire.message(b"C", _target(self.kind), wire.text(self.name))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class Sync:
    """End of a batch: commit or roll back, then say ReadyForQuery."""

    def encode(self) -> bytes:
        return b"S\0\0\0\4"

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class Flush:
    """Send what you have."""

    def encode(self) -> bytes:
        return b"H\0\0\0\4"

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class Terminate:
    """Goodbye."""

    def encode(self) -> bytes:
        return b"X\0\0\0\4"

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class AuthenticationResponse:
    """Any ``p`` message. Only the state of the login tells which; parse ``data`` accordingly."""

    data: bytes = field(repr=False)

    def encode(self) -> bytes:
        return wire.message(b"p", self.data)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class PasswordMessage:
    """A password in clear or hashed with MD5; known so that it can be refused."""

    password: str = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> "PasswordMessage":
        reader = Body(data)
        parsed = cls(reader.text())
        reader.end()
        return parsed

    def encode(self) -> bytes:
        return wire.message(b"p", wire.text(self.password))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class SASLInitialResponse:
    """The chosen mechanism and, if any, its first message (RFC 4422)."""

    mechanism: str
    data: bytes | None = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> "SASLInitialResponse":
        reader = Body(data)
        parsed = cls(reader.text(), reader.value())
        reader.end()
        return parsed

    def encode(self) -> bytes:
        return wire.message(b"p", wire.text(self.mechanism), wire.sized(self.data))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class SASLResponse:
    """A later message of the mechanism."""

    data: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> "SASLResponse":
        return cls(data)

    def encode(self) -> bytes:
        return wire.message(b"p", self.data)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class CopyData:
    """A piece of a COPY stream; the same in both directions."""

    data: bytes = field(repr=False)

    def encode(self) -> bytes:
        return wire.message(b"d", self.data)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class CopyDone:
    """The COPY stream is complete; the same in both directions."""

    def encode(self) -> bytes:
        return b"c\0\0\0\4"

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class CopyFail:
    """The client gives the COPY up, and says why."""

    message: str

    def encode(self) -> bytes:
        return wire.message(b"f", wire.text(self.message))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function by OID, without SQL: known so that it can be refused."""

    data: bytes = field(repr=False)

    def encode(self) -> bytes:
        return wire.message(b"F", self.data)

    __bytes__ = encode


FrontendMessage: TypeAlias = (
    Query
    | Parse
    | Bind
    | Describe
    | Execute
    | Close
    | Sync
    | Flush
    | Terminate
    | AuthenticationResponse
    | CopyData
    | CopyDone
    | CopyFail
    | FunctionCall
)


def decode_frontend(kind: int, body: bytes) -> FrontendMessage:
    """The client message of ``kind`` in ``body``; an unknown kind is a violation."""
    decode = _DECODERS.get(kind)
    if decode is None:
        raise ProtocolViolation("a client message has an unknown kind")
    reader = Body(body)
    decoded = decode(reader)
    reader.end()
    return decoded


def _target(kind: str) -> bytes:
    if kind not in ("S", "P"):
        raise ProtocolViolation("a target is neither statement nor portal")
    return kind.encode()


def _read_target(reader: Body) -> str:
    kind = reader.take(1)
    if kind not in (b"S", b"P"):
        raise ProtocolViolation("a target is neither statement nor portal")
    return kind.decode()


def _parse(reader: Body) -> Parse:
    name, sql = reader.text(), reader.text()
    return Parse(name, sql, tuple(reader.u32() for _ in range(reader.u16())))


def _bind(reader: Body) -> Bind:
    portal, statement = reader.text(), reader.text()
    formats = tuple(reader.format_code() for _ in range(reader.u16()))
    params = tuple(reader.value() for _ in range(reader.u16()))
    if len(formats) not in (0, 1, len(params)):
        raise ProtocolViolation("the parameter formats do not match the parameters")
    results = tuple(reader.format_code() for _ in range(reader.u16()))
    return Bind(portal, statement, formats, params, results)


_DECODERS: Final[dict[int, Callable[[Body], FrontendMessage]]] = {
    ord("Q"): lambda reader: Query(reader.text()),
    ord("P"): _parse,
    ord("B"): _bind,
    ord("D"): lambda reader: Describe(_read_target(reader), reader.text()),
    ord("E"): lambda reader: Execute(reader.text(), reader.i32()),
    ord("C"): lambda reader: Close(_read_target(reader), reader.text()),
    ord("S"): lambda _: Sync(),
    ord("H"): lambda _: Flush(),
    ord("X"): lambda _: Terminate(),
    ord("p"): lambda reader: AuthenticationResponse(reader.rest()),
    ord("d"): lambda reader: CopyData(reader.rest()),
    ord("c"): lambda _: CopyDone(),
    ord("f"): lambda reader: CopyFail(reader.text()),
    ord("F"): lambda reader: FunctionCall(reader.rest()),
}
