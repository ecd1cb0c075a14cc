"""What a peer did that PostgreSQL's protocol v3 does not allow (SQLSTATE 08P01)."""

from chartgate.errors import ChartgateError, Refused


class ProtocolViolation(ChartgateError):
    """Bytes that are not a protocol v3 message, or come where none is due; never quotes them."""

    code = "protocol_violation"
    sqlstate = "08P01"


class StartupRefused(Refused):
    """A well-formed startup packet that asks for what the gate does not give."""

    code = "startup_refused"
    sqlstate = "28000"
