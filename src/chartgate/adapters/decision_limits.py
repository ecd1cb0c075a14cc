"""What one worker of the decision service takes, and how long it waits.

The rule kept: everything a caller can make grow has an end. Numbers are of one worker process.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    head: int = 16 << 10
    """Request line and headers of one request (RFC 9110, 5.4; RFC 6585, 5)."""
    target: int = 2 << 10
    """The request target (RFC 9110, 15.5.15)."""
    headers: int = 64
    body: int = 1 << 20
    """A body, decoded from its chunks; of a frame on the Unix socket the same."""
    pipeline: int = 64
    """Requests of one connection that wait for their answer; then it is not read from."""
    connections: int = 2_048
    """Beyond it a connection is answered 503 and closed."""
    connections_per_address: int = 1_024
    unanswered_bytes: int = 1 << 20
    """What may wait to be read by one caller; then nothing more is read from it."""

    head_seconds: float = 5.0
    body_seconds: float = 10.0
    idle_seconds: float = 75.0
    stranger_seconds: float = 15.0
    """As ``idle_seconds``, of a connection that has not shown a credential that counts."""
    stalled_seconds: float = 10.0
    """A caller that does not read its answers for so long is cut off."""
    handshake_seconds: float = 5.0
    handshakes: int = 32
    """TLS handshakes under way; at most half of them with one address."""
    handshakes_waiting: int = 1_024
    """Connections that wait for theirs."""

    queue_seconds: float = 0.020
    """A request that would wait longer for its turn is refused at once."""
    log_seconds: float = 0.050
    """Where the oldest of many decisions waits for the log as long, no more are begun."""
    in_flight: int = 1_024
    """Decisions begun and not yet answered: they wait for the log."""
    recording_seconds: float = 2.0
    """A decision that is not recorded by then is answered 503, whatever becomes of its entry."""
    drain_seconds: float = 5.0
    """How long an orderly end waits for what is under way."""


DEFAULT = Limits()
