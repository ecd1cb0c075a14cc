"""The HTTPS door: HTTP/1.1 on an asyncio protocol of our own (ADR 0011).

The rules kept: answers leave in the order of the questions (RFC 9112, 9.3.2); what a caller may send,
hold open or leave unread has an end (``decision_limits``), watched by one sweep and not by a timer for
each request; a caller that is not known learns nothing but that, and before its body is read; who
would wait too long is refused before anything is parsed (``decision_turns``).
"""

import asyncio
import math
from collections import deque
from typing import Final, Protocol, cast

from chartgate.adapters.decision_callers import Refusals
from chartgate.adapters.decision_desk import Desk
from chartgate.adapters.decision_exchange import Exchange
from chartgate.adapters.decision_http1 import (
    Head,
    Heads,
    HttpRequest,
    HttpViolation,
    RequestReader,
)
from chartgate.adapters.decision_limits import Limits
from chartgate.adapters.decision_reception import Admitted, Peer, Reception, Refusal, peer_of
from chartgate.adapters.decision_replies import BUSY, CONTINUE, Extra, Stamp
from chartgate.adapters.decision_turns import Turns, weight_of
from chartgate.app.authzen_errors import error_body

CHANNEL: Final = "https"
WITHOUT_TLS: Final = "http"
"""On this machine alone."""
_LINGER_SECONDS: Final = 1.0


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
        self.limits: Final = limits
        self.access_log: Final = access_log
        self.heads: Final = Heads(limits)
        self.stamp: Final = Stamp()
        self.refusals: Final = Refusals(desk.node, desk.metrics, loop.time, channel)
        self.reception: Final = Reception(desk.node, self.refusals, pages.paths(), channel)
        self.connections: set[HttpConnection] = set()
        self._by_address: dict[str, int] = {}
        self.is_draining = False
        self._swept = 0

    def connection(self) -> "HttpConnection":
        """A protocol for one more connection."""
        return HttpConnection(self)

    def opened(self, connection: "HttpConnection") -> bool:
        """Whether there is room for it."""
        client = connection.peer.client
        if self.is_draining or not self._has_room(client):
            self.desk.metrics.count("refused_connections")
            return False
        self.connections.add(connection)
        self._by_address[client] = self._by_address.get(client, 0) + 1
        return True

    def _has_room(self, client: str) -> bool:
        """Whether there is, or is made, room for a connection: strangers give way to each other."""
        is_address_full = self._by_address.get(client, 0) >= self.limits.connections_per_address
        if not is_address_full and len(self.connections) < self.limits.connections:
            return True
        idle = [
            one
            for one in self.connections
            if one.is_stranger and not (is_address_full and one.peer.client != client)
        ]
        if not idle:
            return False
        longest = min(idle, key=lambda one: one.due)
        self.closed(longest)
        longest.abort()
        return True

    def closed(self, connection: "HttpConnection") -> None:
        """It is gone."""
        if connection in self.connections:
            self.connections.discard(connection)
            client = connection.peer.client
            left = self._by_address[client] - 1
            if left:
                self._by_address[client] = left
            else:
                del self._by_address[client]

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


class HttpConnection(asyncio.Protocol):
    """One connection."""

    def __init__(self, door: HttpDoor) -> None:
        self.door = door
        self.due = 0.0
        self.peer = Peer()
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
        self._is_busy = self._is_behind = False
        self._is_known = False
        """It has shown a credential that counts."""

    @property
    def is_stranger(self) -> bool:
        """Whether nobody known is there, and nothing is under way for it."""
        return not self._is_known and not self._pending

    # --- asyncio -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self.door.limits.unanswered_bytes)
        self.peer = peer_of(transport)
        if not self.door.opened(self):
            self.is_closing = True
            self._transport.write(BUSY)
            self._transport.close()
            return
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
        if self._is_busy or self._is_behind:
            return  # whoever reads, or is about to, goes on
        self._is_busy = True
        try:
            if self._read_some():
                self._stage = ""  # a request has come whole: what is waited for now is another one
        finally:
            self._is_busy = False
        self._set_reading()
        self._watch()

    def _read_some(self) -> bool:
        """Take what is there, as far as it may be; whether it was a request."""
        reader, pending, depth = self._reader, self._pending, self.door.limits.pipeline
        taken = 0
        while not self.is_closing and not self._is_unread and len(pending) < depth:
            if taken >= depth:
                # others have their turn before what else came at once
                self._is_behind = True
                self.door.loop.call_soon(self._go_on)
                break
            try:
                request = reader.next()
            except HttpViolation as exc:
                self._violated(exc)
                break
            if request is None:
                if reader.head is not None and not self._is_looked_at:
                    self._look(reader.head)
                break
            taken += 1
            self._take(request)
        return taken > 0

    def _go_on(self) -> None:
        self._is_behind = False
        if not self.is_closing:
            self._read()

    def _violated(self, exc: HttpViolation) -> None:
        self.door.desk.metrics.count("refused_malformed")
        self._last(_NO_HEAD, (exc.status, error_body("malformed", str(exc)), Extra.NONE))

    def _look(self, head: Head) -> None:
        """A body is on its way: see that it is worth reading, before it is."""
        self._is_looked_at = True
        admitted = self.door.reception.admit(head, self.peer)
        if not isinstance(admitted, Admitted):
            self._last(head, admitted)
            return
        self._is_known = self._is_known or admitted.caller is not None
        if self._reader.is_waiting and not self._pending:
            self._transport.write(CONTINUE)

    def _last(self, head: Head, refusal: Refusal) -> None:
        """Answer, and read nothing more: what comes next is not understood, or not wanted."""
        self.is_closing = self._lingers = True
        self._refuse(head, refusal)

    def _refuse(self, head: Head, refusal: Refusal) -> None:
        exchange = Exchange(self, head)
        self._pending.append(exchange)
        exchange.answer(*refusal)

    def _take(self, request: HttpRequest) -> None:
        self._is_looked_at = False
        head = request.head
        if not head.keep_alive:
            self.is_closing = True
        admitted = self.door.reception.admit(head, self.peer)
        if not isinstance(admitted, Admitted):
            self._refuse(head, admitted)
            return
        exchange = Exchange(self, head)
        self._pending.append(exchange)
        caller = admitted.caller
        if caller is None:
            status, kind, body = self.door.pages.page(head.path, head.host)
            extra = Extra.RETRY if status == 503 else Extra.NONE
            exchange.answer(status, body, extra, kind.encode())
            return
        self._is_known = True
        exchange.operation, exchange.caller = admitted
        exchange.share = caller.service.uid
        turns = self.door.turns
        if not turns.admits(exchange.arrived, exchange.share):
            exchange.give_up()
            return
        exchange.body = request.body
        exchange.weight = weight_of(exchange.operation, request.body)
        turns.enter(exchange)

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
        wanted = (
            not self._is_unread
            and not self._is_behind
            and len(self._pending) < self.door.limits.pipeline
        )
        if wanted is not self._is_reading and not self._transport.is_closing():
            self._is_reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def _watch(self) -> None:
        """A time limit begins with its stage; more bytes of the same stage do not move it."""
        if self._is_unread:
            return  # whoever does not read has a limit of its own
        stage = self._reader.stage
        if stage == "idle" and self._pending:
            stage = "answering"
        if stage == self._stage and stage != "idle":
            return
        self._stage = stage
        limits = self.door.limits
        seconds = {
            "idle": min(
                limits.idle_seconds, math.inf if self._is_known else limits.stranger_seconds
            ),
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


_NO_HEAD: Final = Head(method="", path="", length=0, keep_alive=False)
_TOO_SLOW: Final = error_body("too_slow", "the request did not come in time")
