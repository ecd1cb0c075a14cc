"""Who logs in: the SCRAM exchange over a wire, and the settings of the start-up packet.

RFC 5802 and RFC 7677; PostgreSQL documentation, 54.3 "SASL Authentication". An unknown name and a
wrong password take the same steps and hear the same words.
"""

from typing import Final

from chartgate.adapters.wire import Wire
from chartgate.pgwire.frames import Frame, StartupMessage
from chartgate.pgwire.messages import (
    AuthenticationResponse,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    SASLInitialResponse,
    SASLResponse,
    decode_frontend,
)
from chartgate.pgwire.scram import MECHANISM, ScramServer
from chartgate.pgwire.violation import ProtocolViolation, StartupRefused
from chartgate.sql.allow import SETTINGS

PURPOSE: Final = "chartgate.purpose"


async def authenticate(wire: Wire, server: ScramServer) -> bytes:
    """Run the exchange; answers the server's last message, to be sent when all else is well.

    Raises ``AuthenticationFailed`` or ``ProtocolViolation``.
    """
    wire.write(AuthenticationSASL((MECHANISM,)).encode())
    first = SASLInitialResponse.parse(await _response(wire))
    if first.mechanism != MECHANISM or first.data is None:
        raise ProtocolViolation("only SCRAM-SHA-256 is spoken here")
    wire.write(AuthenticationSASLContinue(server.start(first.data)).encode())
    return server.finish(SASLResponse.parse(await _response(wire)).data)


def settings_of(startup: StartupMessage) -> dict[str, str]:
    """The settings a client gives at start-up: parameters, and ``options=-c name=value``."""
    given = {
        # asyncpg puts the encoding's name in quotes, which PostgreSQL takes off as well.
        name.lower(): value.strip("'")
        for name, value in startup.parameters.items()
        if name not in {"user", "database", "options"}
    }
    words = startup.parameters.get("options", "").split()
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            word = "-c" + words.pop(0)
        name, equals, value = word.removeprefix("--").removeprefix("-c").partition("=")
        if not equals or word == name:
            raise StartupRefused("a start-up option is not of the form -c name=value")
        given[name.strip().lower().replace("-", "_")] = value
    for name, value in given.items():
        if name == PURPOSE:
            continue
        rule = SETTINGS.get(name)
        if rule is None or not rule.admits(value):
            raise StartupRefused(f'the start-up setting "{name[:64]}" is not allowed')
    return given


async def _response(wire: Wire) -> bytes:
    while not wire.has_frames:
        wire.check()
        await wire.signal.wait()
    frame = wire.take_frame()
    assert isinstance(frame, Frame)
    message = decode_frontend(frame.kind, frame.body)
    if not isinstance(message, AuthenticationResponse):
        raise ProtocolViolation("a login was expected")
    return message.data
