"""The door of the log's one writer: workers, commands and applications append through it.

Rules kept:

- The kernel, not the caller, says who is calling. The socket is 0600 in a folder of mode 0700: this
  process's own user and root are heard as worker, gateway or command. Another user is heard at all
  only where applications are let in (``AppDoor``), only as ``app``, and for as long as her service
  token is accepted: what was revoked writes nothing more, whatever link it holds.
- Each kind of caller may write only its own kinds of event (``log_admission``): nobody slips a
  decision into the log from outside.
- An answer is sent after the entries are on disk; a caller that gets no answer must act as if
  nothing was recorded.
- Nobody starves the others: bytes under way are bounded for each caller, whoever does not read her
  answers is dropped, a frame has at most 1 MiB.
"""

import asyncio
import logging
import socket
import stat
from collections.abc import Coroutine, Sequence
from functools import partial
from os import geteuid, stat_result
from pathlib import Path
from typing import Final, Self, cast

import msgspec

from chartgate.adapters.audit_log import Committer
from chartgate.adapters.log_admission import Admission, AppDoor
from chartgate.adapters.log_frames import (
    VERSION,
    Frames,
    Hello,
    Malformed,
    Op,
    Status,
    Welcome,
    answer,
    failure,
    framed,
    pack_head,
    pack_number,
    taken_apart,
    unpack_entries,
    unpack_number,
)
from chartgate.adapters.log_link import NoGateway, append_through
from chartgate.adapters.unix_place import bound_at, peer_uid
from chartgate.errors import ChartgateError, LogUnavailable, Misconfigured, Refused

__all__ = ["AppDoor", "LogSocket", "NoGateway", "append_through", "serve_log_socket"]

MAX_UNDER_WAY: Final = 4 << 20
"""Bytes of one caller that may wait for the disk at once."""
_SMALL: Final = 64
"""What a request counts for beside its entries."""
MAX_CALLERS: Final = 256
MAX_STRANGERS: Final = 64
"""Callers of other users: they cannot take the places of our own."""
MAX_UNREAD: Final = 256 << 10
_GREETING_SECONDS: Final = 10.0
TOKEN_SECONDS: Final = 5.0
"""For so long an application is believed before its token is looked at again."""
_GRACE_SECONDS: Final = 1.0

_logger = logging.getLogger(__name__)


class LogSocket:
    """A listening socket; close it to stop taking entries."""

    def __init__(self, path: Path, log: Committer, node: str, origin: str, door: AppDoor | None):
        """Use ``serve_log_socket``."""
        self.path = path
        self.log = log
        self.node = node
        self.origin = origin
        self.door = door
        self.callers: set[_Caller] = set()
        self.beside: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None
        self.is_closing = False

    async def close(self) -> None:
        """Stop listening, answer what is under way, remove the socket."""
        self.is_closing = True
        if self.server is not None:
            self.server.close()
        ends = [caller.finish() for caller in tuple(self.callers)]
        if ends:
            await asyncio.wait(ends, timeout=_GRACE_SECONDS)
            for caller in tuple(self.callers):
                caller.drop()
            await asyncio.wait(ends)
        self.path.unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def serve_log_socket(
    path: Path, log: Committer, *, node: str = "", origin: str = "", door: AppDoor | None = None
) -> LogSocket:
    """Listen at ``path`` for ``log``.

    The caller holds the log's lock: a socket left there by a predecessor is removed. With ``door``
    the socket is open to its group, and applications of other users are heard.
    """
    listening = LogSocket(path, log, node, origin, door)
    listening.server = await asyncio.get_running_loop().create_unix_server(
        partial(_Caller, listening), sock=_bound(path, door)
    )
    return listening


class _Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, house: LogSocket) -> None:
        self._house = house
        self._log = house.log
        self._frames = Frames()
        self._admission: Admission | None = None
        self._token = ""
        self._believed_until = float("inf")
        self._held_back: bytes | None = None
        self._is_cleared = False
        self.is_own = False
        self._is_waiting = False
        self._is_finishing = False
        self._under_way = 0
        self._out: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._transport.set_write_buffer_limits(high=MAX_UNREAD)
        house = self._house
        house.callers.add(self)
        self.is_own = peer_uid(transport.get_extra_info("socket")) in {geteuid(), 0}
        alike = sum(caller.is_own == self.is_own for caller in house.callers)
        if not self.is_own and house.door is None:
            _logger.warning("log socket: refused a caller of another user")
            self._transport.abort()
            return
        if alike > (MAX_CALLERS if self.is_own else MAX_STRANGERS):
            _logger.warning("log socket: refused one caller too many")
            self._transport.abort()
            return
        self._deadline = self._loop.call_later(_GREETING_SECONDS, self._transport.abort)
        if house.is_closing:
            self.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.callers.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()
        if not self._ended.done():
            self._ended.set_result(None)

    def pause_writing(self) -> None:
        _logger.warning("log socket: dropped a caller that does not read its answers")
        self._transport.abort()

    def finish(self) -> "asyncio.Future[None]":
        """Take nothing more; end when everything that was taken is answered."""
        self._is_finishing = True
        self._end_if_done()
        return self._ended

    def drop(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        if not self._is_waiting:
            self._go_on()

    def _go_on(self) -> None:
        """Serve what has arrived, until there is nothing more or it is enough for now."""
        try:
            while not (self._is_waiting or self._is_finishing):
                frame, self._held_back = self._held_back or self._frames.next(), None
                if frame is None:
                    return
                if self._admission is None:
                    self._greet(frame)
                elif self._is_cleared or self._loop.time() < self._believed_until:
                    self._is_cleared = False
                    self._serve(frame)
                else:
                    self._held_back = frame
                    self._wait_for(self._ask_again())
        except Malformed as exc:
            _logger.warning("log socket: %s", exc)
            self._transport.abort()

    # greeting

    def _greet(self, frame: bytes) -> None:
        try:
            hello = msgspec.json.decode(frame, type=Hello)
        except msgspec.MsgspecError as exc:
            raise Malformed("a greeting that is not understood") from exc
        if hello.v != VERSION:
            self._turn_away(Refused(f"the log socket speaks version {VERSION}, not {hello.v}"))
        elif hello.kind == "app":
            self._wait_for(self._greet_app(hello.token))
        elif not self.is_own:
            self._turn_away(Refused("another user is heard as an application alone"))
        else:
            try:
                self._welcome(Admission.of(hello.kind, self._house.node))
            except Refused as exc:
                self._turn_away(exc)

    async def _greet_app(self, token: str) -> None:
        door = self._house.door
        try:
            if door is None:
                raise Refused("applications are not let in here")
            uid = await door.verify(token)
            if not uid:
                raise Refused("the service token is not accepted")
            self._token, self._believed_until = token, self._loop.time() + TOKEN_SECONDS
            self._welcome(Admission.of_app(uid, self._house.node, door))
        except ChartgateError as exc:
            self._turn_away(exc)

    async def _ask_again(self) -> None:
        """Whether the application's token still counts; the link ends where it does not."""
        door, admission = self._house.door, self._admission
        assert door is not None
        assert admission is not None
        try:
            uid = await door.verify(self._token)
        except ChartgateError:
            uid = None  # nobody can say: what it asked for is not recorded, so nothing is released
        if uid == admission.service:
            self._believed_until = self._loop.time() + TOKEN_SECONDS
            self._is_cleared = True
            return
        _logger.warning("log socket: an application's token is not accepted any more")
        self._transport.abort()

    def _welcome(self, admission: Admission) -> None:
        self._admission = admission
        if self._deadline is not None:
            self._deadline.cancel()
        house, log = self._house, self._log
        said = Welcome(
            VERSION, house.origin, house.node, log.size, log.checkpoint, admission.service
        )
        self._transport.write(framed(msgspec.json.encode(said)))

    def _turn_away(self, exc: ChartgateError) -> None:
        said = Welcome(error=str(exc), unavailable=isinstance(exc, LogUnavailable))
        self._transport.write(framed(msgspec.json.encode(said)))
        self._transport.close()
        self._is_waiting = True

    # requests

    def _serve(self, frame: bytes) -> None:
        op, number, body = taken_apart(frame)
        try:
            match op:
                case Op.APPEND | Op.RELAXED | Op.PLACE:
                    assert self._admission is not None
                    entries = self._admission.admitted(
                        unpack_entries(body), durable=op != Op.RELAXED
                    )
                    if self._log.is_full:
                        self._wait_for(self._wait_for_room(op, number, entries))
                    else:
                        self._put(op, number, entries)
                case Op.SETTLE:
                    index = unpack_number(body)
                    self._charge(_SMALL)
                    self._wait_beside(self._settle(index, number))
                case Op.HEAD:
                    size, checkpoint = self._log.size, self._log.checkpoint
                    self._say(answer(Status.OK, number, pack_head(size, checkpoint)))
                case _:
                    raise Malformed("a request of no known kind")
        except Malformed:
            raise
        except ChartgateError as exc:
            self._say(failure(exc, number))

    def _put(self, op: int, number: int, entries: Sequence[bytes]) -> None:
        if op == Op.PLACE:
            index = self._log.take(entries)
            self._say(answer(Status.OK, number, pack_number(index)))
            return
        size = sum(map(len, entries)) + _SMALL
        self._log.submit(entries, partial(self._recorded, number, size), durable=op == Op.APPEND)
        self._charge(size)

    def _recorded(self, number: int, size: int, result: int | ChartgateError) -> None:
        if isinstance(result, int):
            self._say(answer(Status.OK, number, pack_number(result)))
        else:
            self._say(failure(result, number))
        self._discharge(size)

    async def _settle(self, index: int, number: int) -> None:
        try:
            await self._log.settled(index)
            self._say(answer(Status.OK, number, pack_number(self._log.size)))
        except ChartgateError as exc:
            self._say(failure(exc, number))
        finally:
            self._discharge(_SMALL)

    async def _wait_for_room(self, op: int, number: int, entries: Sequence[bytes]) -> None:
        try:
            await self._log.room()
            self._put(op, number, entries)
        except ChartgateError as exc:
            self._say(failure(exc, number))

    # waiting and answering

    def _charge(self, size: int) -> None:
        self._under_way += size
        if self._under_way > MAX_UNDER_WAY and not self._is_waiting:
            self._is_waiting = True
            self._transport.pause_reading()

    def _discharge(self, size: int) -> None:
        was_over = self._under_way > MAX_UNDER_WAY
        self._under_way -= size
        if was_over and self._under_way <= MAX_UNDER_WAY and self._task is None:
            self._resume()
        self._end_if_done()

    def _wait_for(self, step: Coroutine[None, None, None]) -> None:
        """Serve nothing else of this caller until the step is done."""
        self._is_waiting = True
        self._transport.pause_reading()

        async def stepping() -> None:
            await step
            self._task = None
            if self._under_way <= MAX_UNDER_WAY:
                self._resume()

        self._task = self._loop.create_task(stepping())

    def _wait_beside(self, step: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(step)
        self._house.beside.add(task)
        task.add_done_callback(self._house.beside.discard)

    def _resume(self) -> None:
        if self._transport.is_closing():
            return
        self._is_waiting = False
        self._transport.resume_reading()
        self._go_on()

    def _say(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._transport.is_closing():
            self._transport.write(b"".join(out))
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._is_finishing and not self._under_way and not self._out and self._task is None:
            self._transport.close()


def _bound(path: Path, door: AppDoor | None) -> socket.socket:
    group = None if door is None else door.group
    # its group may pass and look, nobody else, and nobody may put things there
    open_to = 0o077 if group is None else 0o027

    def check(folder: stat_result) -> None:
        if folder.st_uid != geteuid() or stat.S_IMODE(folder.st_mode) & open_to:
            mode = 0o777 & ~open_to
            raise Misconfigured(f"the folder {path.parent} is open to others: chmod {mode:04o} it")

    return bound_at(path, check, group=group)
