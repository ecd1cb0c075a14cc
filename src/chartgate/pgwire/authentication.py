"""The server's ``R`` messages: how it wants to know the client (PostgreSQL documentation, 55.7)."""

from dataclasses import dataclass, field
from typing import TypeAlias

from chartgate.pgwire import body as wire
from chartgate.pgwire.body import Body
from chartgate.pgwire.violation import ProtocolViolation


@dataclass(frozen=True, slots=True)
class AuthenticationOk:
    """The login succeeded."""

    def encode(self) -> bytes:
        return wire.message(b"R", wire.u32(0))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class AuthenticationCleartext:
    """The server asks for the password in clear; recognised, never answered by us."""

    def encode(self) -> bytes:
        return wire.message(b"R", wire.u32(3))

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class AuthenticationMD5:
    """The server asks for an MD5 hash; recognised, never answered by us."""

    salt: bytes

    def encode(self) -> bytes:
        return wire.message(b"R", wire.u32(5), self.salt)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class AuthenticationSASL:
    """The SASL mechanisms the server offers, best first."""

    mechanisms: tuple[str, ...]

    def encode(self) -> bytes:
        return wire.message(b"R", wire.u32(10), *map(wire.text, self.mechanisms), b"\0")

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class AuthenticationSASLContinue:
    """The mechanism's challenge."""

    data: bytes = field(repr=False)

    def encode(self) -> bytes:
        return wire.message(b"R", wire.u32(11), self.data)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class AuthenticationSASLFinal:
    """The mechanism's outcome, with the server's own proof."""

    data: bytes = field(repr=False)

    def encode(self) -> bytes:
        return wire.message(b"R", wire.u32(12), self.data)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class AuthenticationOther:
    """Kerberos, GSSAPI, SSPI or one not known to us: an upstream login that must be refused."""

    method: int
    data: bytes = field(repr=False)

    def encode(self) -> bytes:
        return wire.message(b"R", wire.u32(self.method), self.data)

    __bytes__ = encode


AuthenticationMessage: TypeAlias = (
    AuthenticationOk
    | AuthenticationCleartext
    | AuthenticationMD5
    | AuthenticationSASL
    | AuthenticationSASLContinue
    | AuthenticationSASLFinal
    | AuthenticationOther
)


def decode_authentication(reader: Body) -> AuthenticationMessage:
    """The ``R`` message under the cursor."""
    match reader.u32():
        case 0:
            return AuthenticationOk()
        case 3:
            return AuthenticationCleartext()
        case 5:
            return AuthenticationMD5(reader.take(4))
        case 10:
            mechanisms: list[str] = []
            while name := reader.text():
                mechanisms.append(name)
            if not mechanisms:
                raise ProtocolViolation("the server offers SASL without a mechanism")
            return AuthenticationSASL(tuple(mechanisms))
        case 11:
            return AuthenticationSASLContinue(reader.rest())
        case 12:
            return AuthenticationSASLFinal(reader.rest())
        case method:
            return AuthenticationOther(method, reader.rest())
