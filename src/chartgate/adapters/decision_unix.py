"""The door for a sidecar: a Unix socket with frames instead of HTTP.

A frame is a big-endian 32-bit length and so many bytes of JSON. Asked: ``{"v":1,"op":"evaluation",
"token":…,"id":n,"body":{…}}``, with ``request`` (its ``X-Request-ID``) and ``trace`` if wanted;
``op`` is ``evaluation``, ``evaluations`` or ``search/…``. Answered: ``{"id":n,"status":200,"body":{…}}``,
in the order in which things are recorded, not in which they were asked.

The rules kept: the kernel says which user calls (SO_PEERCRED), and users that were not named are not
heard; a token is asked for all the same unless that user is a service itself; the limits are the
HTTPS door's.
"""

import asyncio
import logging
import os
import re
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Final, cast

import msgspec

from chartgate.adapters.decision_callers import Refusals
from chartgate.adapters.decision_desk import OVERLOADED, UNRECORDED, Desk
from chartgate.adapters.decision_limits import Limits
from chartgate.adapters.decision_reception import QUESTIONS
from chartgate.adapters.decision_turns import Answering, Turns, weight_of
from chartgate.adapters.unix_place import bound_at, peer_uid
from chartgate.app.authzen_errors import error_body
from chartgate.app.node_asked import Caller, UnknownCaller
from chartgate.errors import Misconfigured
from chartgate.model.service import Service

CHANNEL: Final = "unix"
VERSION: Final = 1
OPERATIONS: Final = frozenset(QUESTIONS.values())
_TRACE: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ENVELOPE: Final = 4_096
"""Bytes of a frame beside its body."""

_LINGER_SECONDS: Final = 1.0

_logger = logging.getLogger(__name__)


class Frame(msgspec.Struct, frozen=True):
    """What is asked."""

    v: int
    op: str
    id: int
    body: msgspec.Raw
    token: str = ""
    request: str = ""
    trace: str = ""


_decoder: Final = msgspec.json.Decoder(Frame)


class UnixDoor:
    """All connections of one socket.

    ``users``: the users that are heard, and the service that each is without a token (empty: it needs
    one); None: this process's own user and root.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        desk: Desk,
        turns: Turns,
        limits: Limits,
        users: Mapping[int, str] | None = None,
    ) -> None:
        self.loop: Final = loop
        self.desk: Final = desk
        self.turns: Final = turns
        self.limits: Final = limits
        self.users: Final = {os.geteuid(): "", 0: ""} if users is None else dict(users)
        self.refusals: Final = Refusals(desk.node, desk.metrics, loop.time, CHANNEL)
        self.connections: set[UnixConnection] = set()
        self.is_draining = False

    def connection(self) -> "UnixConnection":
        """A protocol for one more connection."""
        return UnixConnection(self)

    def sweep(self) -> None:
        """Twice a second: cut off whoever is too slow."""
        now = self.loop.time()
        for connection in tuple(self.connections):
            if connection.due <= now:
                self.desk.metrics.count("cut_off")
                connection.abort()
        self.refusals.sweep()

    def drain(self) -> None:
        """Take nothing more."""
        self.is_draining = True
        for connection in tuple(self.connections):
            connection.drain()


class _Exchange:
    """One frame and its answer."""

    __slots__ = ("arrived", "body", "caller", "connection", "number", "operation", "share", "task",
                 "trace", "weight")  # fmt: skip

    def __init__(self, connection: "UnixConnection", frame: Frame, caller: Caller) -> None:
        self.connection = connection
        self.arrived = perf_counter()
        self.number = frame.id
        self.operation = frame.op
        self.body = bytes(frame.body)
        # It goes to the log: text of the caller's own would be there for good.
        self.trace = frame.trace if _TRACE.fullmatch(frame.trace) else ""
        self.weight = weight_of(self.operation, self.body)
        self.caller = caller
        self.share = caller.service.uid
        self.task: Answering | None = None

    def begin(self) -> None:
        """Its turn has come."""
        door = self.connection.door
        answering = door.desk.ask(self.operation, self.body, self.caller, self.trace)
        self.task = door.turns.carry_out(self, answering, self._decided)

    def give_up(self) -> None:
        """It waited too long."""
        self.connection.door.desk.metrics.count("refused_overload")
        self._answer(503, OVERLOADED)

    def late(self) -> None:
        """It is not recorded in time."""
        if self.task is not None:
            self.task.cancel()

    def _decided(self, task: Answering) -> None:
        self.connection.door.turns.ended(self)
        self.task = None
        self._answer(*((503, UNRECORDED) if task.cancelled() else task.result()))

    def _answer(self, status: int, body: bytes) -> None:
        metrics = self.connection.door.desk.metrics
        if status == 200:
            metrics.stages["total"].add(perf_counter() - self.arrived)
        metrics.requested(self.operation, status)
        self.connection.answered(self.number, status, body)


class UnixConnection(asyncio.Protocol):
    """One connection."""

    def __init__(self, door: UnixDoor) -> None:
        self.door = door
        self.due = float("inf")
        self._transport: asyncio.Transport
        self._buffer = b""
        self._service = ""
        self._client = ""
        self._open = 0
        self._is_closing = False
        self._is_reading = True
        self._is_unread = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self.door.limits.unanswered_bytes)
        uid = peer_uid(transport.get_extra_info("socket"))
        self._client = f"uid {uid}"
        if uid not in self.door.users:
            self.door.refusals.add(self._client, "a user that is not heard at this socket")
        elif (
            not self.door.is_draining and len(self.door.connections) < self.door.limits.connections
        ):
            _logger.info("a caller connected", extra={"peer_uid": uid})
            self._service = self.door.users[uid]
            self.door.connections.add(self)
            self._watch()
            return
        self._is_closing = True
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self.door.connections.discard(self)

    def eof_received(self) -> bool:
        self._is_closing = True
        return self._open > 0

    def pause_writing(self) -> None:
        self._is_unread = True
        self._set_reading()
        self.due = self.door.loop.time() + self.door.limits.stalled_seconds

    def resume_writing(self) -> None:
        self._is_unread = False
        self._read()

    def data_received(self, data: bytes) -> None:
        if not self._is_closing:
            was_empty = not self._buffer
            self._buffer = self._buffer + data if self._buffer else data
            self._read(fresh=was_empty)

    def _read(self, *, fresh: bool = True) -> None:
        buffer, at, most = self._buffer, 0, self.door.limits.body + _ENVELOPE
        while not self._is_closing and not self._is_unread and self._has_room:
            if len(buffer) - at < 4:
                break
            size = int.from_bytes(buffer[at : at + 4], "big")
            if not 0 < size <= most:
                self._violated(413, "a frame of that length is not read")
                return
            if len(buffer) - at - 4 < size:
                break
            frame = buffer[at + 4 : at + 4 + size]
            at += 4 + size
            self._take(frame)
        self._buffer = buffer[at:] if at else buffer
        self._set_reading()
        self._watch(fresh=fresh or at > 0)

    @property
    def _has_room(self) -> bool:
        return self._open < self.door.limits.pipeline

    def _take(self, data: bytes) -> None:
        try:
            frame = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._violated(400, "not a frame of this protocol")
            return
        if frame.v != VERSION:
            self._violated(400, "version 1 of the protocol is spoken here")
            return
        self._open += 1
        if frame.op not in OPERATIONS:
            self.answered(frame.id, 404, error_body("not_found", "there is no such operation"))
            return
        service = self._caller(frame)
        if service is None:
            self.answered(frame.id, 401, _UNKNOWN)
            return
        exchange = _Exchange(self, frame, Caller(service, CHANNEL))
        if self.door.turns.admits(exchange.arrived, exchange.share):
            self.door.turns.enter(exchange)
        else:
            exchange.give_up()

    def _caller(self, frame: Frame) -> Service | None:
        node = self.door.desk.node
        try:
            if frame.token:
                return node.service_of_token(frame.token)
            if self._service:
                return node.service_named(self._service)
            raise UnknownCaller("no credential")
        except UnknownCaller as exc:
            self.door.refusals.add(self._client, str(exc))
            return None

    def _violated(self, status: int, words: str) -> None:
        self.door.desk.metrics.count("refused_malformed")
        self._is_closing = True
        self._open += 1
        self.answered(0, status, error_body("malformed", words))

    def answered(self, number: int, status: int, body: bytes) -> None:
        """Send an answer."""
        self._open -= 1
        if self._transport.is_closing():
            return
        frame = b'{"id":%d,"status":%d,"body":%b}' % (number, status, body)
        self._transport.write(len(frame).to_bytes(4, "big") + frame)
        if self._is_closing:
            if self._open == 0:
                self._end()
        elif not self._is_reading:
            self._read()
        elif self._open == 0:
            self._watch()

    def _set_reading(self) -> None:
        wanted = not self._is_unread and self._has_room
        if wanted is not self._is_reading and not self._transport.is_closing():
            self._is_reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def _watch(self, *, fresh: bool = True) -> None:
        limits = self.door.limits
        if self._buffer:
            if fresh:
                self.due = self.door.loop.time() + limits.body_seconds
        elif self._open:
            self.due = self.door.loop.time() + 2 * limits.recording_seconds
        else:
            self.due = float("inf")  # a sidecar may be quiet as long as it likes

    def abort(self) -> None:
        """Cut it off."""
        self._transport.abort()

    def drain(self) -> None:
        """End with the last answer."""
        self._is_closing = True
        if not self._open:
            self._end()

    def _end(self) -> None:
        """Say that nothing more comes; what the caller still sends is not read, but taken.

        A socket that is closed over bytes that nobody has read takes back the answers before them.
        """
        self._transport.write_eof()
        self._transport.resume_reading()
        self.due = self.door.loop.time() + _LINGER_SECONDS


def bound(path: Path, *, group: int | None = None) -> socket.socket:
    """A listening place: of mode 0600, or 0660 for a group.

    Raises ``Misconfigured`` where something else is in the way, or where others could replace it.
    """

    def check(folder: os.stat_result) -> None:
        if stat.S_IMODE(folder.st_mode) & 0o002 and not folder.st_mode & stat.S_ISVTX:
            raise Misconfigured(f"the folder {path.parent} is open to everybody")

    return bound_at(path, check, group=group)


_UNKNOWN: Final = error_body("unknown_caller", "the service's credential is missing or not valid")
