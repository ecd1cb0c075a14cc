"""The HTTPS door: HTTP/1.1 on an asyncio protocol of our own (ADR 0011).

The rules kept: answers leave in the order of the questions (RFC 9112, 9.3.2); what a caller may send,
hold open or leave unread has an end (``decision_limits``), watched by one sweep and not by a timer for
each request; a caller that is not known learns nothing but that, and before its body is read; who
would wait too long is refused before anything is parsed (``decision_turns``).
"""

import asyncio
import hashlib
import logging
import ssl
from collections import deque
from time import perf_counter
from typing import Any, Final, Protocol, cast

from chartgate.adapters.decision_callers import Refusals
from chartgate.adapters.decision_desk import OVERLOADED, UNRECORDED, Desk
from chartgate.adapters.decision_http1 import (
    Head,
    Heads,
    HttpRequest,
    HttpViolation,
    RequestReader,
)
from chartgate.adapters.decision_limits import Limits
from chartgate.adapters.decision_replies import (
    BUSY,
    CONTINUE,
    JSON,
    Extra,
    Stamp,
    head_of,
)
from chartgate.adapters.decision_turns import Answering, Turns
from chartgate.app.authzen_errors import error_body
from chartgate.app.node_asked import Caller, UnknownCaller
from chartgate.model.service import Service

CHANNEL: Final = "https"
WITHOUT_TLS: Final = "http"
"""On this machine alone."""
BASE: Final = "/access/v1/"
QUESTIONS: Final = {
    f"{BASE}{operation}": operation
    for operation in (
        "evaluation",
        "evaluations",
        "search/subject",
        "search/resource",
        "search/action",
    )
}
METRICS: Final = "/metrics"

_WEIGHT: Final = 200
"""What a question costs beside its bytes, in bytes."""
_LINGER_SECONDS: Final = 1.0
_Refusal = tuple[int, bytes, bytes]
"""Status, body, header lines."""

_access = logging.getLogger("chartgate.access")


class Pages(Protocol):
    """What is answered to GET: prepared, or cheap."""

    def paths(self) -> frozenset[str]: ...

    def page(self, path: str, host: str) -> tuple[int, str, bytes]:
        """Status, content type, body."""


class HttpDoor:
    """All connections of one worker's port."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        desk: Desk,
        turns: Turns,
        pages: Pages,
        limits: Limits,
        *,
        channel: str = CHANNEL,
        access_log: bool = False,
    ) -> None:
        self.loop: Final = loop
        self.desk: Final = desk
        self.turns: Final = turns
        self.pages: Final = pages
        self.paths: Final = pages.paths()
        self.limits: Final = limits
        self.channel: Final = channel
        self.access_log: Final = access_log
        self.heads: Final = Heads(limits)
        self.stamp: Final = Stamp()
        self.refusals: Final = Refusals(desk.node, desk.metrics, loop.time, channel)
        self.connections: set[HttpConnection] = set()
        self._by_address: dict[str, int] = {}
        self.is_draining = False
        self._swept = 0

    def connection(self) -> "HttpConnection":
        """A protocol for one more connection."""
        return HttpConnection(self)

    def opened(self, connection: "HttpConnection") -> bool:
        """Whether there is room for it."""
        count = self._by_address.get(connection.client, 0)
        if (
            self.is_draining
            or len(self.connections) >= self.limits.connections
            or count >= self.limits.connections_per_address
        ):
            self.desk.metrics.count("refused_connections")
            return False
        self.connections.add(connection)
        self._by_address[connection.client] = count + 1
        return True

    def closed(self, connection: "HttpConnection") -> None:
        """It is gone."""
        if connection in self.connections:
            self.connections.discard(connection)
            left = self._by_address[connection.client] - 1
            if left:
                self._by_address[connection.client] = left
            else:
                del self._by_address[connection.client]

    def sweep(self) -> None:
        """Twice a second: cut off whoever is too slow."""
        now = self.loop.time()
        for connection in tuple(self.connections):
            if connection.due <= now:
                connection.late()
        self.stamp.renew()
        self.refusals.sweep()
        self.desk.metrics.gauges["connections"] = len(self.connections)
        self._swept += 1
        if self._swept % 120 == 0:
            self.heads.forget()

    def drain(self) -> None:
        """Take nothing more; idle connections end, the others with their last answer."""
        self.is_draining = True
        for connection in tuple(self.connections):
            connection.drain()


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "arrived", "body", "caller", "connection", "head", "operation", "reply", "task", "weight"
    )  # fmt: skip

    def __init__(self, connection: "HttpConnection", head: Head) -> None:
        self.connection = connection
        self.head = head
        self.arrived = perf_counter()
        self.reply: bytes | None = None
        self.weight = 0
        self.operation = ""
        self.body = b""
        self.caller: Caller | None = None
        self.task: Answering | None = None

    def begin(self) -> None:
        """Its turn has come."""
        door = self.connection.door
        assert self.caller is not None
        body, self.body = self.body, b""
        answering = door.desk.ask(self.operation, body, self.caller, self.head.trace)
        self.task = door.turns.carry_out(self, answering, self._decided)

    def give_up(self) -> None:
        """It waited too long."""
        door = self.connection.door
        door.desk.metrics.count("refused_overload")
        self.answer(503, OVERLOADED, Extra.RETRY)

    def late(self) -> None:
        """It is not recorded in time: whoever asked is told so, whatever becomes of the entry."""
        if self.task is not None:
            self.task.cancel()

    def _decided(self, task: Answering) -> None:
        self.connection.door.turns.under_way.pop(self, None)
        self.task = None
        if task.cancelled():
            status, body = 503, UNRECORDED
        else:
            status, body = task.result()
        self.answer(status, body, Extra.RETRY if status == 503 else Extra.NONE)

    def answer(
        self, status: int, body: bytes, extra: bytes = Extra.NONE, kind: bytes = JSON
    ) -> None:
        """Write the answer, once it is its turn."""
        connection, head = self.connection, self.head
        door = connection.door
        closes = not head.keep_alive or connection.is_closing or door.is_draining
        self.reply = head_of(
            status, len(body), door.stamp, kind=kind, extra=extra, request_id=head.request_id,
            trace=head.trace, closes=closes,
        ) + (b"" if head.method == "HEAD" else body)  # fmt: skip
        if closes:
            connection.is_closing = True
        took = perf_counter() - self.arrived
        metrics = door.desk.metrics
        if status == 200 and self.operation:
            metrics.stages["total"].add(took)
        metrics.requested(self.operation or "other", status)
        if door.access_log:
            _access.info(
                "request",
                extra={
                    "endpoint": self.operation or "other",
                    "status": status,
                    "micros": round(took * 1e6),
                    "service": self.caller.service.name if self.caller is not None else "",
                },
            )
        connection.flush()


class HttpConnection(asyncio.Protocol):
    """One connection."""

    def __init__(self, door: HttpDoor) -> None:
        self.door = door
        self.due = 0.0
        self.client = ""
        self.is_closing = False
        """No more requests are taken from it."""
        self._transport: asyncio.Transport
        self._reader = RequestReader(door.limits, door.heads)
        self._pending: deque[Exchange] = deque()
        self._stage = ""
        self._is_looked_at = False
        self._is_reading = True
        self._is_unread = False
        self._lingers = False
        self._fingerprint = self._subject = ""

    # --- asyncio -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self.door.limits.unanswered_bytes)
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if peer else ""
        if not self.door.opened(self):
            self.is_closing = True
            self._transport.write(BUSY)
            self._transport.close()
            return
        self._fingerprint, self._subject = _certificate(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self._pending.clear()
        self.door.closed(self)

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        self._reader.feed(data)
        self._read()

    def eof_received(self) -> bool:
        self.is_closing = True
        return bool(self._pending)  # half-closed: what was asked is still answered

    def pause_writing(self) -> None:
        self._is_unread = True
        self._set_reading()
        self.due = self.door.loop.time() + self.door.limits.stalled_seconds

    def resume_writing(self) -> None:
        self._is_unread = False
        self._stage = ""
        self._read()

    # --- reading -----------------------------------------------------------------------------

    def _read(self) -> None:
        reader, pending, depth = self._reader, self._pending, self.door.limits.pipeline
        while not self.is_closing and not self._is_unread and len(pending) < depth:
            try:
                request = reader.next()
            except HttpViolation as exc:
                self._violated(exc)
                break
            if request is None:
                if reader.head is not None and not self._is_looked_at:
                    self._look(reader.head)
                break
            self._take(request)
        self._set_reading()
        self._watch()

    def _violated(self, exc: HttpViolation) -> None:
        self.door.desk.metrics.count("refused_malformed")
        self._last(_NO_HEAD, (exc.status, error_body("malformed", str(exc)), Extra.NONE))

    def _look(self, head: Head) -> None:
        """A body is on its way: see that it is worth reading, before it is."""
        self._is_looked_at = True
        admitted = self._admitted(head)
        if isinstance(admitted, tuple):
            self._last(head, admitted)
        elif self._reader.is_waiting and not self._pending:
            self._transport.write(CONTINUE)

    def _last(self, head: Head, refusal: _Refusal) -> None:
        """Answer, and read nothing more: what comes next is not understood, or not wanted."""
        self.is_closing = self._lingers = True
        self._refuse(head, refusal)

    def _refuse(self, head: Head, refusal: _Refusal) -> None:
        exchange = Exchange(self, head)
        self._pending.append(exchange)
        exchange.answer(*refusal)

    def _take(self, request: HttpRequest) -> None:
        self._is_looked_at = False
        head = request.head
        if not head.keep_alive:
            self.is_closing = True
        admitted = self._admitted(head)
        if isinstance(admitted, tuple):
            self._refuse(head, admitted)
            return
        self._pending.append(admitted)
        if not admitted.operation:
            status, kind, body = self.door.pages.page(head.path, head.host)
            extra = Extra.RETRY if status == 503 else Extra.NONE
            admitted.answer(status, body, extra, kind.encode())
            return
        turns = self.door.turns
        if not turns.admits(admitted.arrived):
            admitted.give_up()
            return
        admitted.body = request.body
        admitted.weight = len(request.body) + _WEIGHT
        turns.enter(admitted)

    def _admitted(self, head: Head) -> "Exchange | _Refusal":
        """What it asks, if this caller may ask anything; else how it is answered."""
        door = self.door
        operation = QUESTIONS.get(head.path)
        if operation is None:
            if head.path not in door.paths:
                return 404, _NOT_FOUND, Extra.NONE
            if head.method not in ("GET", "HEAD"):
                return 405, _NO_METHOD, Extra.ALLOW_GET
            if head.path == METRICS and not _is_local(self.client):
                service = self._service(head)
                if isinstance(service, tuple):
                    return service
            return Exchange(self, head)
        if head.method != "POST":
            return 405, _NO_METHOD, Extra.ALLOW_POST
        service = self._service(head)
        if isinstance(service, tuple):
            return service
        if head.is_encoded:
            return 415, _ENCODED, Extra.NONE
        if not head.is_json:
            return 400, _NOT_JSON, Extra.NONE
        exchange = Exchange(self, head)
        exchange.operation = operation
        exchange.caller = Caller(service, door.channel)
        return exchange

    def _service(self, head: Head) -> "Service | _Refusal":
        """Who asks."""
        node = self.door.desk.node
        try:
            if head.token:
                return node.service_of_token(head.token)
            if head.malformed_credential:
                raise UnknownCaller("a credential that is not a bearer token")
            if self._fingerprint:
                return node.service_of_certificate(self._fingerprint, self._subject)
            raise UnknownCaller("no credential")
        except UnknownCaller as exc:
            often = self.door.refusals.add(self.client, str(exc))
        if often:
            return 429, _TOO_OFTEN, Extra.RETRY_LATER
        return 401, _UNKNOWN, Extra.WRONG_TOKEN if head.token else Extra.NO_TOKEN

    # --- writing, and ending -----------------------------------------------------------------

    def flush(self) -> None:
        """Send the answers that are next."""
        pending = self._pending
        if not pending or pending[0].reply is None:
            return
        replies = [cast("bytes", pending.popleft().reply)]
        while pending and pending[0].reply is not None:
            replies.append(cast("bytes", pending.popleft().reply))
        self._transport.write(replies[0] if len(replies) == 1 else b"".join(replies))
        if self.is_closing:
            if not pending:
                self._end()
        elif not self._is_reading:
            self._read()
        elif not pending:
            self._watch()

    def _set_reading(self) -> None:
        wanted = not self._is_unread and len(self._pending) < self.door.limits.pipeline
        if wanted is not self._is_reading and not self._transport.is_closing():
            self._is_reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def _watch(self) -> None:
        """A time limit begins with its stage; more bytes of the same stage do not move it."""
        stage = self._reader.stage
        if stage == "idle" and self._pending:
            stage = "answering"
        if stage == self._stage and stage != "idle":
            return
        self._stage = stage
        limits = self.door.limits
        seconds = {
            "idle": limits.idle_seconds,
            "head": limits.head_seconds,
            "body": limits.body_seconds,
            "answering": 2 * limits.recording_seconds + limits.stalled_seconds,
        }[stage]
        self.due = self.door.loop.time() + seconds

    def late(self) -> None:
        """Its time is over."""
        if self._stage == "lingering":
            self._transport.abort()
            return
        self.door.desk.metrics.count("cut_off")
        if self._stage in ("head", "body") and not self._pending and not self._is_unread:
            self._last(_NO_HEAD, (408, _TOO_SLOW, Extra.NONE))
        elif self._stage == "idle" and not self._is_unread:
            self._transport.close()
        else:
            self._transport.abort()

    def _end(self) -> None:
        """Close. Where bytes are on their way that nobody reads, the answer must get out first."""
        if self._lingers and self._transport.can_write_eof():
            self._transport.write_eof()
            if not self._is_reading:
                self._is_reading = True
                self._transport.resume_reading()
            self._stage = "lingering"
            self.due = self.door.loop.time() + _LINGER_SECONDS
        else:
            self._transport.close()

    def abort(self) -> None:
        """Cut it off."""
        self._transport.abort()

    def drain(self) -> None:
        """End with the last answer."""
        self.is_closing = True
        self._lingers = not self._is_reading or self._reader.stage != "idle"
        if not self._pending:
            self._end()


def _certificate(transport: asyncio.BaseTransport) -> tuple[str, str]:
    """Fingerprint and subject of the caller's certificate, which the handshake has verified."""
    link: Any = transport.get_extra_info("ssl_object")
    if link is None:
        return "", ""
    try:
        der = link.getpeercert(binary_form=True)
        if not der:
            return "", ""
        said: dict[str, Any] = link.getpeercert() or {}
    except (ssl.SSLError, ValueError):
        return "", ""
    names = [value for kind, value in said.get("subjectAltName", ()) if kind in ("DNS", "URI")]
    if not names:
        names = [v for part in said.get("subject", ()) for k, v in part if k == "commonName"]
    return hashlib.sha256(der).hexdigest(), names[0] if names else ""


def _is_local(client: str) -> bool:
    return client in ("127.0.0.1", "::1")


_NO_HEAD: Final = Head(method="", path="", length=0, keep_alive=False)
_NOT_FOUND: Final = error_body("not_found", "there is nothing at this path")
_NO_METHOD: Final = error_body("method_not_allowed", "this path is not asked so")
_NOT_JSON: Final = error_body("not_json", "the content type has to be application/json")
_ENCODED: Final = error_body("encoded", "a body with a content coding is not read")
_UNKNOWN: Final = error_body("unknown_caller", "the service's credential is missing or not valid")
_TOO_OFTEN: Final = error_body("too_often", "too many requests without a valid credential")
_TOO_SLOW: Final = error_body("too_slow", "the request did not come in time")
