"""Heads of HTTP answers, put together from parts that are prepared (RFC 9110, RFC 9112).

Every answer is ``no-store``: a decision is of its moment. Nothing of ours is named but the protocol.
"""

import secrets
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from chartgate.app.authzen_errors import error_body

JSON: Final = b"application/json"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Extra:
    """Header lines that some answers have."""

    NONE: Final = b""
    RETRY: Final = b"Retry-After: 1\r\n"
    RETRY_LATER: Final = b"Retry-After: 10\r\n"
    ALLOW_GET: Final = b"Allow: GET, HEAD\r\n"
    ALLOW_POST: Final = b"Allow: POST\r\n"
    NO_TOKEN: Final = b'WWW-Authenticate: Bearer realm="chartgate"\r\n'
    WRONG_TOKEN: Final = b'WWW-Authenticate: Bearer realm="chartgate", error="invalid_token"\r\n'


class Stamp:
    """The ``Date`` line, renewed by the sweep; and ids of spans."""

    __slots__ = ("_number", "_prefix", "date")

    def __init__(self) -> None:
        self.date = b""
        self._prefix = secrets.token_hex(4)
        self._number = secrets.randbits(31)
        self.renew()

    def renew(self) -> None:
        """Say what time it is now."""
        self.date = f"Date: {formatdate(usegmt=True)}\r\n".encode()

    def span(self) -> str:
        """An id for our part of a trace."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        return f"{self._prefix}{self._number or 1:08x}"


@lru_cache(maxsize=256)
def _first(status: int, kind: bytes, extra: bytes) -> bytes:
    return (
        b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())
        + b"Content-Type: " + kind + b"\r\nCache-Control: no-store\r\n" + extra
        + b"Content-Length: "
    )  # fmt: skip


def head_of(
    status: int,
    length: int,
    stamp: Stamp,
    *,
    kind: bytes = JSON,
    extra: bytes = Extra.NONE,
    request_id: str = "",
    trace: str = "",
    closes: bool = False,
) -> bytes:
    """The head of an answer; ``request_id`` and ``trace`` have been checked."""
    head = b"%b%d\r\n%b" % (_first(status, kind, extra), length, stamp.date)
    if request_id:
        head += b"X-Request-ID: %b\r\n" % request_id.encode("ascii")
    if trace:
        # W3C Trace Context, level 2: the trace is the caller's, the span is ours
        head += f"traceresponse: 00-{trace[3:35]}-{stamp.span()}-{trace[53:55]}\r\n".encode()
    return head + (b"Connection: close\r\n\r\n" if closes else b"\r\n")


def _busy() -> bytes:
    body = error_body("overloaded", "too many connections; try again later")
    return head_of(503, len(body), Stamp(), extra=Extra.RETRY, closes=True) + body


BUSY: Final = _busy()
"""To a connection for which there is no room."""
