"""The untyped first packets: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage.

Rules kept (PostgreSQL documentation, "Message Formats" and "Start-up"):

- a packet is at most 10,000 bytes (MAX_STARTUP_PACKET_LENGTH);
- bytes that follow an encryption request before it was answered were not sent by the peer that
  will do the handshake, so they end the session (CVE-2021-23214, CVE-2021-23222);
- encryption is asked for at most once per kind;
- one spelling per parameter: a repeated one is refused, not resolved;
- a minor version above ours, or a ``_pq_.`` option we do not know, is answered with
  NegotiateProtocolVersion and the session goes on at 3.2.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from chartgate.pgwire.backend import NegotiateProtocolVersion
from chartgate.pgwire.body import Body, i32, text, u32
from chartgate.pgwire.violation import ProtocolViolation, StartupRefused

MAX_STARTUP: Final = 10_000
PROTOCOL_3_0: Final = 3 << 16
PROTOCOL_3_2: Final = 3 << 16 | 2
_CANCEL: Final = 80877102
_SSL: Final = 80877103
_GSSENC: Final = 80877104


@dataclass(frozen=True, slots=True)
class SSLRequest:
    """May we speak TLS? Answered with one byte, ``S`` or ``N``."""

    def encode(self) -> bytes:
        return i32(8) + i32(_SSL)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class GSSENCRequest:
    """May we speak GSSAPI encryption? Always answered ``N``."""

    def encode(self) -> bytes:
        return i32(8) + i32(_GSSENC)

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Stop what the session with this key is doing; 3.2 allows keys of up to 256 bytes."""

    pid: int
    key: bytes

    def encode(self) -> bytes:
        return i32(len(self.key) + 12) + i32(_CANCEL) + u32(self.pid) + self.key

    __bytes__ = encode


@dataclass(frozen=True, slots=True)
class StartupMessage:
    """Who wants to speak, to which database, with which settings; ``_pq_.`` options apart."""

    protocol: int
    parameters: dict[str, str]
    unknown_options: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        return self.parameters["user"]

    @property
    def database(self) -> str:
        """The database asked for; by default it is named like the user."""
        return self.parameters.get("database") or self.user

    @property
    def agreed_protocol(self) -> int:
        """The version the session will speak: the asked one, at most 3.2."""
        return min(self.protocol, PROTOCOL_3_2)

    @property
    def is_negotiation_due(self) -> bool:
        """Whether NegotiateProtocolVersion must be the first answer."""
        return self.protocol > PROTOCOL_3_2 or bool(self.unknown_options)

    def negotiation(self) -> NegotiateProtocolVersion | None:
        """The NegotiateProtocolVersion that is due, or None."""
        if not self.is_negotiation_due:
            return None
        return NegotiateProtocolVersion(self.agreed_protocol, self.unknown_options)

    def encode(self) -> bytes:
        pairs = b"".join(text(name) + text(value) for name, value in self.parameters.items())
        # A name that was refused as an option has lost its value; it is not sent on.
        body = i32(self.protocol) + pairs + b"\0"
        return i32(len(body) + 4) + body

    __bytes__ = encode


StartupPacket: TypeAlias = SSLRequest | GSSENCRequest | CancelRequest | StartupMessage


class StartupReader:
    """Reads untyped packets. Keep one reader for the connection, across the TLS handshake.

    Bytes that arrived in clear after an encryption request but in a later read are the caller's
    to discard: they are in the socket's buffer, not here.
    """

    __slots__ = ("_asked", "_buffer", "_cap", "_over")

    def __init__(self, max_packet: int = MAX_STARTUP) -> None:
        self._cap = max_packet
        self._buffer = b""
        self._asked: set[type[SSLRequest | GSSENCRequest]] = set()
        self._over = False

    def feed(self, data: bytes) -> None:
        """Add what the peer sent."""
        self._buffer += data

    def next(self) -> StartupPacket | None:
        """The next packet, or None while it is incomplete; raises on what is not allowed."""
        if self._over:
            raise ProtocolViolation("a second startup packet")
        if len(self._buffer) < 4:
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        if not 8 <= length <= self._cap:
            raise ProtocolViolation("the startup packet has an impossible length")
        if len(self._buffer) < length:
            return None
        packet = decode_startup(self._buffer[4:length])
        self._buffer = self._buffer[length:]
        if isinstance(packet, SSLRequest | GSSENCRequest):
            if type(packet) in self._asked:
                raise ProtocolViolation("encryption was asked for twice")
            if self._buffer:
                raise ProtocolViolation("unencrypted bytes follow the encryption request")
            self._asked.add(type(packet))
        else:
            self._over = True
        return packet

    def rest(self) -> bytes:
        """Bytes after the StartupMessage: the first typed messages; empties the reader."""
        rest, self._buffer = self._buffer, b""
        return rest


def decode_startup(body: bytes) -> StartupPacket:
    """The packet in ``body``, which is everything after the length."""
    reader = Body(body)
    code = reader.u32()
    if code == _SSL:
        reader.end()
        return SSLRequest()
    if code == _GSSENC:
        reader.end()
        return GSSENCRequest()
    if code == _CANCEL:
        pid, key = reader.u32(), reader.rest()
        if not 4 <= len(key) <= 256:
            raise ProtocolViolation("a cancel key must have 4 to 256 bytes")
        return CancelRequest(pid, key)
    if code >> 16 != 3:
        raise ProtocolViolation("only protocol version 3 is spoken here")
    return _startup_message(code, reader)


def _startup_message(protocol: int, reader: Body) -> StartupMessage:
    parameters: dict[str, str] = {}
    options: list[str] = []
    while name := reader.text():
        value = reader.text()
        if name in parameters or name in options:
            raise ProtocolViolation("a startup parameter is given twice")
        if name.startswith("_pq_."):
            options.append(name)
        else:
            parameters[name] = value
    reader.end()
    if "replication" in parameters:
        raise StartupRefused("replication connections are not allowed through the gate")
    if not parameters.get("user"):
        raise StartupRefused("the startup packet names no user")
    return StartupMessage(protocol, parameters, tuple(options))
