"""HTTP/1.1 requests out of bytes, sans-IO: RFC 9112, as strict as it allows.

The rule kept: two readers of the same bytes must never see different requests (request smuggling,
RFC 9112, 11.2). A head is read as a whole and by one parser, llhttp; what it lets pass and we do not
understand is refused here. After a refusal the connection ends, since nobody can say where the next
request would begin.

A head is a pure function of its bytes, and clients that keep a connection send the same bytes again
and again: ``Heads`` remembers them.
"""

import re
from typing import Final

import httptools
import msgspec

from chartgate.adapters.decision_chunks import Chunks, HttpViolation
from chartgate.adapters.decision_limits import Limits

CHUNKED: Final = -1
_END: Final = b"\r\n\r\n"
_TOKEN: Final = re.compile(rb"(?i)bearer +([A-Za-z0-9\-._~+/]{1,512}=*)", re.ASCII)
_TRACE: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_METHOD: Final = re.compile(rb"[A-Za-z-]{1,32} ")
_ABSOLUTE: Final = re.compile(rb"(?i)https?://([^/?#@\s]+)([/?].*)?", re.DOTALL)
"""RFC 9112, 3.2.2; whoever names a user in a target means to mislead (RFC 9110, 4.2.4)."""
_JSON: Final = re.compile(rb'(?i)application/json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?')


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What of a request's head is used; nothing else of it is kept."""

    method: str
    path: str
    length: int
    """Bytes of the body, or ``CHUNKED``."""
    keep_alive: bool
    expects: bool = False
    """``Expect: 100-continue``: the caller waits before it sends the body."""
    is_json: bool = False
    is_encoded: bool = False
    """The body has a content coding."""
    token: str = ""
    """The bearer token (RFC 6750, 2.1)."""
    malformed_credential: bool = False
    request_id: str = ""
    trace: str = ""
    """``traceparent`` (W3C Trace Context) if it is a valid one."""
    host: str = ""
    lasts: bool = True
    """Whether the same bytes are likely to come again."""


class HttpRequest(msgspec.Struct, frozen=True):
    """One request, whole."""

    head: Head
    body: bytes


class Heads:
    """Heads by their bytes. Bounded: when it is full, it starts anew; so does it now and then."""

    __slots__ = ("_known", "_limits")
    _ROOM: Final = 256
    _LONGEST: Final = 2 << 10

    def __init__(self, limits: Limits) -> None:
        self._known: dict[bytes, Head] = {}
        self._limits = limits

    def read(self, data: bytes) -> Head:
        """The head; raises ``HttpViolation``."""
        known = self._known.get(data)
        if known is not None:
            return known
        head = parse_head(data, self._limits)
        if head.lasts and len(data) <= self._LONGEST:
            if len(self._known) >= self._ROOM:
                self._known.clear()
            self._known[data] = head
        return head

    def forget(self) -> None:
        """A token must not stay in memory because it was used once."""
        self._known.clear()


class _Lines:
    """Callbacks of the parser."""

    def __init__(self, limits: Limits) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False
        self._limits = limits

    def on_url(self, url: bytes) -> None:
        self.target += url
        if len(self.target) > self._limits.target:
            raise HttpViolation(414, "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= self._limits.headers:
            raise HttpViolation(431, "too many headers")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.is_complete = True


def parse_head(data: bytes, limits: Limits) -> Head:
    """A head, up to and with its empty line; raises ``HttpViolation``."""
    lines = _Lines(limits)
    parser = httptools.HttpRequestParser(lines)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # an offer that we do not take: RFC 9110, 7.8
    except httptools.HttpParserInvalidMethodError:
        if _METHOD.match(data):
            raise HttpViolation(501, "the method is not known") from None
        raise HttpViolation(400, "not an HTTP/1.1 request") from None
    except httptools.HttpParserError as exc:
        if isinstance(exc.__context__, HttpViolation):
            raise exc.__context__ from None
        raise HttpViolation(400, "not an HTTP/1.1 request") from None
    if not lines.is_complete:
        raise HttpViolation(400, "not an HTTP/1.1 request")
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise HttpViolation(505, "HTTP/1.1 is spoken here")
    method = parser.get_method().decode("ascii")
    return _head(method, version, lines)


def _head(method: str, version: str, lines: _Lines) -> Head:
    found: dict[bytes, bytes] = {}
    for name, value in lines.headers:
        if name in found and name in _SINGLE:
            raise HttpViolation(400, "a header that stands alone was sent twice")
        found[name] = value
    if version == "1.1" and b"host" not in found:
        raise HttpViolation(400, "the Host header is missing")
    token, malformed = _token(found.get(b"authorization"))
    request_id = found.get(b"x-request-id", b"")
    trace = found.get(b"traceparent", b"")
    expect = found.get(b"expect", b"").lower()
    if expect not in (b"", b"100-continue"):
        raise HttpViolation(417, "the expectation cannot be met")
    connection = {part.strip() for part in found.get(b"connection", b"").lower().split(b",")}
    path, authority = _target(method, lines.target)
    host = found.get(b"host", b"")
    if authority and authority.lower() != host.strip().lower():
        # RFC 9112, 3.2.2: the target counts; whoever routed it by the other saw another request
        raise HttpViolation(400, "the request target and the Host header are of different hosts")
    return Head(
        method=method,
        path=path,
        length=_length(version, found),
        keep_alive=version == "1.1" and b"close" not in connection,
        expects=expect != b"" and version == "1.1",
        is_json=_JSON.fullmatch(found.get(b"content-type", b"").strip()) is not None,
        is_encoded=found.get(b"content-encoding", b"identity").lower() != b"identity",
        token=token,
        malformed_credential=malformed,
        request_id=request_id.decode() if _REQUEST_ID.fullmatch(request_id) else "",
        trace=_trace(trace),
        host=host.decode("latin-1"),
        lasts=not (request_id or trace),
    )


_SINGLE: Final = frozenset(
    (
        b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization",
        b"content-encoding", b"expect", b"x-request-id", b"traceparent",
    )
)  # fmt: skip


def _length(version: str, found: dict[bytes, bytes]) -> int:
    coding = found.get(b"transfer-encoding")
    length = found.get(b"content-length")
    if coding is not None:
        # RFC 9112, 6.1 and 6.3: with both, or in HTTP/1.0, somebody is confused or an attacker
        if length is not None or version == "1.0":
            raise HttpViolation(400, "the length of the body is ambiguous")
        if coding.strip().lower() != b"chunked":
            raise HttpViolation(501, "the transfer coding is not known")
        return CHUNKED
    if length is None:
        return 0
    if not (length.isdigit() and length.isascii() and len(length) < 16):
        raise HttpViolation(400, "the length of the body is not a number")
    return int(length)


def _target(method: str, target: bytes) -> tuple[str, bytes]:
    """Path, and the authority where the target has one."""
    authority = b""
    if not target.startswith(b"/"):
        if method == "OPTIONS" and target == b"*":
            return "*", b""
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise HttpViolation(400, "the request target is not understood")
        authority, target = absolute[1], absolute[2] or b"/"
    path = target.partition(b"?")[0] or b"/"
    if b"#" in target or not path.isascii():
        raise HttpViolation(400, "the request target is not understood")
    return path.decode("ascii"), authority


def _token(value: bytes | None) -> tuple[str, bool]:
    if value is None:
        return "", False
    found = _TOKEN.fullmatch(value.strip())
    return (found[1].decode("ascii"), False) if found else ("", True)


def _trace(value: bytes) -> str:
    """W3C Trace Context, 3.2.2: an invalid traceparent is as none."""
    found = _TRACE.fullmatch(value)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5] is not None):
        return ""
    if not found[2].strip(b"0") or not found[3].strip(b"0"):
        return ""
    return value[:55].decode("ascii")


class RequestReader:
    """Bytes in, whole requests out, in order.

    What comes in many small pieces, or holds many small requests, costs as its bytes do: nothing is
    copied again with each of them. After ``HttpViolation`` it is of no use any more.
    """

    __slots__ = (
        "_at", "_body", "_buffer", "_chunks", "_head", "_heads", "_limits", "is_waiting"
    )  # fmt: skip

    def __init__(self, limits: Limits, heads: Heads) -> None:
        self._limits = limits
        self._heads = heads
        self._buffer = b""
        self._at = 0
        """What lies before it in the buffer has been read."""
        self._body = bytearray()
        """The beginning of a body that has not come whole."""
        self._head: Head | None = None
        self._chunks: Chunks | None = None
        self.is_waiting = False
        """A body was announced that the caller sends after ``100 Continue`` only."""

    @property
    def stage(self) -> str:
        """``idle``, ``head`` or ``body``: what is waited for."""
        if self._head is not None:
            return "body"
        return "head" if len(self._buffer) > self._at else "idle"

    @property
    def head(self) -> Head | None:
        """The head whose body is being read."""
        return self._head

    def feed(self, data: bytes) -> None:
        """What came from the caller."""
        if self._body:
            self._body += data
        elif self._at == len(self._buffer):
            self._buffer, self._at = data, 0
        else:
            self._buffer, self._at = self._buffer[self._at :] + data, 0

    def next(self) -> HttpRequest | None:
        """The next request; None until more has come. Raises ``HttpViolation``."""
        head = self._head
        if head is None:
            head = self._next_head()
            if head is None:
                return None
        if head.length == 0:
            self._head = None
            return HttpRequest(head, b"")
        if head.length == CHUNKED:
            return self._chunked(head)
        if self._body and not self._is_collected(head):
            return None
        ends = self._at + head.length
        if len(self._buffer) < ends:
            self._head = head
            self._body += self._buffer[self._at :]
            self._buffer, self._at = b"", 0
            self.is_waiting = head.expects and not self._body
            return None
        body, self._at = self._buffer[self._at : ends], ends
        self._head = None
        self.is_waiting = False
        return HttpRequest(head, body)

    def _is_collected(self, head: Head) -> bool:
        """Whether the body is whole by now; then it is in the buffer."""
        if len(self._body) < head.length:
            return False
        self._buffer, self._at = bytes(self._body), 0
        self._body = bytearray()
        return True

    def _next_head(self) -> Head | None:
        buffer, at, limit = self._buffer, self._at, self._limits.head
        if buffer.startswith(b"\r\n", at):
            # RFC 9112, 2.2: at least one empty line before a request is overlooked
            at = self._at = at + 2
        end = buffer.find(_END, at, at + limit)
        if end < 0:
            if len(buffer) - at >= limit:
                line = buffer.find(b"\r\n", at)
                if line < 0 or line - at > self._limits.target + 64:
                    raise HttpViolation(414, "the request target is too long")
                raise HttpViolation(431, "the headers are too large")
            return None
        end += len(_END)
        head = self._heads.read(buffer[at:end])
        self._at = end
        if head.length > self._limits.body:
            raise HttpViolation(413, "the body is too large")
        self._head = head
        return head

    def _chunked(self, head: Head) -> HttpRequest | None:
        if self._chunks is None:
            self._chunks = Chunks(self._limits)
        self._at = self._chunks.feed(self._buffer, self._at)
        if not self._chunks.is_whole:
            self._head = head
            self.is_waiting = head.expects and not self._chunks.has_begun
            return None
        body, self._chunks, self._head = bytes(self._chunks.body), None, None
        self.is_waiting = False
        return HttpRequest(head, body)


__all__ = [
    "CHUNKED",
    "Head",
    "Heads",
    "HttpRequest",
    "HttpViolation",
    "RequestReader",
    "parse_head",
]
