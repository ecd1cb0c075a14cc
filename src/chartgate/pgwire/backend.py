"""What a server says, decoded strictly, and encoded for our own clients.

PostgreSQL documentation, "Message Formats". Every byte of a body belongs to a field; ``encode``
gives back the bytes that were decoded. Errors and notices are in ``reports``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from chartgate.pgwire import body as wire
from chartgate.pgwire.authentication import AuthenticationMessage, decode_authentication
from chartgate.pgwire.body import Body
from chartgate.pgwire.frontend import CopyData, CopyDone
from chartgate.pgwire.reports import ErrorResponse, NoticeResponse, read_fields
from chartgate.pgwire.violation import ProtocolViolation


@dataclass(frozen=True, slots=True)
class Field:
    """One result column; ``table_oid`` and ``column`` are 0 where it is no table's column."""

    name: str
    table_oid: int = 0
    column: int = 0
    type_oid: int = 25
    type_size: int = -1
    type_modifier: int = -1
    format: int = 0

    def encode(self) -> bytes:
        return b"".join(
            (
                wire.text(self.name),
                wire.u32(self.table_oid),
                wire.i16(self.column),
                wire.u32(self.type_oid),
                wire.i16(self.type_size),
                wire.i32(self.type_modifier),
                wire.i16(self.format),
            )
        )


@dataclass(frozen=True, slots=True)
class RowDescription:
    """The columns of the rows to come."""

    fields: tuple[Field, ...]

    def encode(self) -> bytes:
        columns = (column.encode() for column in self.fields)
        return wire.message(b"T", wire.u16(len(self.fields)), *columns)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class DataRow:
    """One row; None is NULL."""

    values: tuple[bytes | None, ...] = field(repr=False)

    def encode(self) -> bytes:
        return wire.message(b"D", wire.u16(len(self.values)), *map(wire.sized, self.values))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class CommandComplete:
    """A statement is done: ``SELECT 3``, ``INSERT 0 1``."""

    tag: str

    def encode(self) -> bytes:
        return wire.message(b"C", wire.text(self.tag))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class ReadyForQuery:
    """``I`` idle, ``T`` in a transaction, ``E`` in a failed one."""

    status: str = "I"

    def encode(self) -> bytes:
        if self.status not in ("I", "T", "E"):
            raise ProtocolViolation("the transaction status is not known")
        return wire.message(b"Z", self.status.encode())

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class ParameterStatus:
    """A setting that clients want to know has this value."""

    name: str
    value: str

    def encode(self) -> bytes:
        return wire.message(b"S", wire.text(self.name), wire.text(self.value))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class BackendKeyData:
    """What a CancelRequest must present; 4 bytes of key in 3.0, up to 256 in 3.2."""

    pid: int
    key: bytes = field(repr=False)

    def encode(self) -> bytes:
        if not 4 <= len(self.key) <= 256:
            raise ProtocolViolation("a cancel key must have 4 to 256 bytes")
        return wire.message(b"K", wire.u32(self.pid), self.key)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class ParameterDescription:
    """The parameter types of a statement."""

    oids: tuple[int, ...]

    def encode(self) -> bytes:
        return wire.message(b"t", wire.u16(len(self.oids)), *map(wire.u32, self.oids))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class ParseComplete:
    """A statement is prepared."""

    def encode(self) -> bytes:
        return b"1\0\0\0\4"

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class BindComplete:
    """A portal is made."""

    def encode(self) -> bytes:
        return b"2\0\0\0\4"

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class CloseComplete:
    """A statement or portal is gone."""

    def encode(self) -> bytes:
        return b"3\0\0\0\4"

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class NoData:
    """There are no result columns."""

    def encode(self) -> bytes:
        return b"n\0\0\0\4"

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class PortalSuspended:
    """Execute reached its row limit; there may be more."""

    def encode(self) -> bytes:
        return b"s\0\0\0\4"

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class EmptyQueryResponse:
    """There was no statement in the text."""

    def encode(self) -> bytes:
        return b"I\0\0\0\4"

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class _CopyResponse:
    format: int
    column_formats: tuple[int, ...]

    def _encode(self, kind: bytes) -> bytes:
        overall = bytes((self.format,))
        columns = map(wire.i16, self.column_formats)
        return wire.message(kind, overall, wire.u16(len(self.column_formats)), *columns)


@dataclass(frozen=True, slots=True)
class CopyInResponse(_CopyResponse):
    """The server waits for COPY data."""

    def encode(self) -> bytes:
        return self._encode(b"G")

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class CopyOutResponse(_CopyResponse):
    """COPY data follows."""

    def encode(self) -> bytes:
        return self._encode(b"H")

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class CopyBothResponse(_CopyResponse):
    """COPY both ways (replication): known so that it can be refused."""

    def encode(self) -> bytes:
        return self._encode(b"W")

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class NotificationResponse:
    """Someone said NOTIFY on a channel that the session listens to."""

    pid: int
    channel: str
    payload: str = field(repr=False)

    def encode(self) -> bytes:
        names = wire.text(self.channel) + wire.text(self.payload)
        return wire.message(b"A", wire.u32(self.pid), names)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class NegotiateProtocolVersion:
    """The newest version the server speaks (major and minor) and the options it does not know."""

    version: int
    options: tuple[str, ...] = ()

    def encode(self) -> bytes:
        options = map(wire.text, self.options)
        return wire.message(b"v", wire.u32(self.version), wire.u32(len(self.options)), *options)

    __bytes__ = encode


BackendMessage: TypeAlias = (
    AuthenticationMessage
    | RowDescription
    | DataRow
    | CommandComplete
    | ReadyForQuery
    | ErrorResponse
    | NoticeResponse
    | ParameterStatus
    | BackendKeyData
    | ParameterDescription
    | ParseComplete
    | BindComplete
    | CloseComplete
    | NoData
    | PortalSuspended
    | EmptyQueryResponse
    | CopyInResponse
    | CopyOutResponse
    | CopyBothResponse
    | CopyData
    | CopyDone
    | NotificationResponse
    | NegotiateProtocolVersion
)


def decode_backend(kind: int, body: bytes) -> BackendMessage:
    """The server message of ``kind`` in ``body``; an unknown kind is a violation."""
    decode = _DECODERS.get(kind)
    if decode is None:
        raise ProtocolViolation("a server message has an unknown kind")
    reader = Body(body)
    decoded = decode(reader)
    reader.end()
    return decoded


def _field(reader: Body) -> Field:
    name, table, column = reader.text(), reader.u32(), reader.i16()
    oid, size, modifier = reader.u32(), reader.i16(), reader.i32()
    return Field(name, table, column, oid, size, modifier, reader.format_code())


def _ready(reader: Body) -> ReadyForQuery:
    status = reader.take(1)
    if status not in (b"I", b"T", b"E"):
        raise ProtocolViolation("the transaction status is not known")
    return ReadyForQuery(status.decode())


def _key(reader: Body) -> BackendKeyData:
    pid, key = reader.u32(), reader.rest()
    if not 4 <= len(key) <= 256:
        raise ProtocolViolation("a cancel key must have 4 to 256 bytes")
    return BackendKeyData(pid, key)


def _copy(reader: Body) -> tuple[int, tuple[int, ...]]:
    overall = reader.u8()
    if overall not in (0, 1):
        raise ProtocolViolation("a COPY format is neither text nor binary")
    return overall, tuple(reader.format_code() for _ in range(reader.u16()))


def _negotiation(reader: Body) -> NegotiateProtocolVersion:
    version = reader.u32()
    return NegotiateProtocolVersion(version, tuple(reader.text() for _ in range(reader.u32())))


_DECODERS: Final[dict[int, Callable[[Body], BackendMessage]]] = {
    ord("R"): decode_authentication,
    ord("T"): lambda r: RowDescription(tuple(_field(r) for _ in range(r.u16()))),
    ord("D"): lambda r: DataRow(tuple(r.value() for _ in range(r.u16()))),
    ord("C"): lambda r: CommandComplete(r.text()),
    ord("Z"): _ready,
    ord("E"): lambda r: ErrorResponse(read_fields(r)),
    ord("N"): lambda r: NoticeResponse(read_fields(r)),
    ord("S"): lambda r: ParameterStatus(r.text(), r.text()),
    ord("K"): _key,
    ord("t"): lambda r: ParameterDescription(tuple(r.u32() for _ in range(r.u16()))),
    ord("1"): lambda _: ParseComplete(),
    ord("2"): lambda _: BindComplete(),
    ord("3"): lambda _: CloseComplete(),
    ord("n"): lambda _: NoData(),
    ord("s"): lambda _: PortalSuspended(),
    ord("I"): lambda _: EmptyQueryResponse(),
    ord("G"): lambda r: CopyInResponse(*_copy(r)),
    ord("H"): lambda r: CopyOutResponse(*_copy(r)),
    ord("W"): lambda r: CopyBothResponse(*_copy(r)),
    ord("d"): lambda r: CopyData(r.rest()),
    ord("c"): lambda _: CopyDone(),
    ord("A"): lambda r: NotificationResponse(r.u32(), r.text(), r.text()),
    ord("v"): _negotiation,
}
