"""The node's audit log from another process's event loop: one connection, requests in a pipeline.

Rules kept: whoever waits is answered by the writer or gets ``LogUnavailable``, at once when the link
is lost; an entry whose answer did not come may or may not be in the log, so nothing may be released
on it; nothing is sent a second time. The link is made again by itself; until then every append
is refused. Bytes that wait for an answer are bounded.

Requests of one turn of the loop leave in one write, and the writer answers those of one commit in
one: a thousand waiters cost a thousand small frames, not a thousand system calls.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self, cast

import msgspec

from chartgate.adapters.log_frames import (
    Frames,
    Hello,
    Malformed,
    Op,
    Status,
    Welcome,
    framed,
    in_requests,
    pack_entries,
    pack_number,
    raised,
    request,
    taken_apart,
    unpack_head,
    unpack_number,
)
from chartgate.adapters.log_link import TokenSource, check_writer, greeting, welcomed
from chartgate.errors import ChartgateError, LogUnavailable

MAX_UNDER_WAY: Final = 16 << 20
"""Bytes that may wait for their answers."""
MAX_WAITING: Final = 65_536
"""Requests that may."""
_GREETING_SECONDS: Final = 10.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


class RemoteLog:
    """The log of the writer at ``path``; keeps the port ``AuditLog``. Use ``open`` or ``async with``.

    ``kind`` is ``worker``, ``gateway`` or ``app``, which needs ``token``.
    """

    def __init__(
        self,
        path: Path,
        *,
        kind: str = "worker",
        token: TokenSource = "",
        on_link: Callable[[bool], None] | None = None,
    ) -> None:
        self._path = path
        self._kind = kind
        self._token = token
        self._on_link = on_link or (lambda _up: None)
        self._wire: _Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self._welcome = Welcome()
        self._size = 0
        self._checkpoint = ""
        self._reason = "the audit log's writer is not reached yet"
        self._lost_posts = ""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        kind: str = "worker",
        token: TokenSource = "",
        on_link: Callable[[bool], None] | None = None,
    ) -> Self:
        """A log whose link stands; raises ``LogUnavailable`` when the writer is not there."""
        log = cls(path, kind=kind, token=token, on_link=on_link)
        await log.start()
        return log

    async def start(self) -> None:
        """Make the link, and keep making it until closed."""
        wire = await self._connect()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(wire), name="log link")

    async def close(self) -> None:
        """Wait for what is under way, then end the link."""
        self._closing = True
        if self._wire is not None:
            await self._wire.drained()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.lose("the link to the audit log was closed")
            await wire.closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_linked(self) -> bool:
        """Whether the writer can be reached at this moment."""
        return self._wire is not None

    @property
    def welcome(self) -> Welcome:
        """What the writer said when the link was made: its log, node, and whom it takes us for."""
        return self._welcome

    @property
    def origin(self) -> str:
        """Origin line of the log's checkpoints."""
        return self._welcome.origin

    @property
    def size(self) -> int:
        """Entries known to be on the medium; there may be more."""
        return self._size

    @property
    def checkpoint(self) -> str:
        """The newest checkpoint that was asked for: see ``head``."""
        return self._checkpoint

    @property
    def queued(self) -> int:
        """Requests that wait for the writer's answer."""
        return 0 if self._wire is None else self._wire.waiting

    async def append(self, entries: Sequence[bytes], *, durable: bool = True) -> int:
        """The index of the first of these entries, once they are on the medium."""
        op = Op.APPEND if durable else Op.RELAXED
        runs = list(in_requests(entries))
        if len(runs) == 1:
            index = unpack_number(await self._ask(op, pack_entries(entries)))
        else:
            index = await self._append_runs(op, runs)
        if durable:
            self._size = max(self._size, index + len(entries))
        return index

    async def _append_runs(self, op: Op, runs: list[Sequence[bytes]]) -> int:
        """More than a request holds: all of them are recorded, or nobody may rely on any."""
        asked = [self._ask(op, pack_entries(run)) for run in runs]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return min(unpack_number(a) for a in answers if isinstance(a, bytes))

    async def place(self, entries: Sequence[bytes]) -> int:
        """The index of the first of these entries; on the medium within 5 ms, or see ``settled``."""
        return unpack_number(await self._ask(Op.PLACE, pack_entries(entries)))

    async def settled(self, index: int) -> None:
        """Returns once the entry with this index is on the medium."""
        if index < self._size and self._wire is not None:
            return
        size = unpack_number(await self._ask(Op.SETTLE, pack_number(index)))
        self._size = max(self._size, size)

    def post(self, entries: Sequence[bytes]) -> None:
        """Send entries and go on; if they are not taken, the next ``append`` says so."""
        self._check_usable()
        assert self._wire is not None
        self._wire.ask(Op.PLACE, pack_entries(entries)).add_done_callback(self._posted)

    async def head(self) -> tuple[int, str]:
        """Size, and the signed checkpoint over exactly as many entries, all on the medium."""
        size, checkpoint = unpack_head(await self._ask(Op.HEAD, b""))
        if size >= self._size:
            self._size, self._checkpoint = size, checkpoint
        return size, checkpoint

    def _ask(self, op: Op, body: bytes) -> "asyncio.Future[bytes]":
        self._check_usable()
        assert self._wire is not None
        return self._wire.ask(op, body)

    def _check_usable(self) -> None:
        if self._closing:
            raise LogUnavailable("the audit log takes no entries: it is closing")
        if self._wire is None:
            raise LogUnavailable(self._reason)
        if self._lost_posts:
            words, self._lost_posts = self._lost_posts, ""
            raise LogUnavailable(f"an entry before this one was not recorded: {words}")

    def _posted(self, done: "asyncio.Future[bytes]") -> None:
        if not done.cancelled() and (failure := done.exception()) is not None:
            self._lost_posts = str(failure)

    async def _connect(self) -> "_Wire":
        loop = asyncio.get_running_loop()
        hello = greeting(self._kind, self._token)
        try:
            async with asyncio.timeout(_GREETING_SECONDS):
                _, wire = await loop.create_unix_connection(_Wire, str(self._path))
                try:
                    check_writer(wire.socket, self._path, hello.kind)
                    welcome = await wire.greet(hello)
                except BaseException:
                    wire.lose("the audit log's writer was not accepted")
                    raise
        except TimeoutError:
            raise LogUnavailable("the audit log's writer does not answer") from None
        except OSError as exc:
            what = os.strerror(exc.errno) if exc.errno else "no link"
            raise LogUnavailable(f"the audit log's writer is not reached: {what}") from exc
        self._welcome, self._size, self._checkpoint = welcome, welcome.size, welcome.checkpoint
        self._wire = wire
        self._on_link(True)
        return wire

    async def _keep(self, wire: "_Wire") -> None:
        while True:
            self._reason = await wire.ended()
            self._wire = None
            self._on_link(False)
            pause = _FIRST_PAUSE
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                with contextlib.suppress(ChartgateError):
                    wire = await self._connect()
                    break


class _Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._waiting: dict[int, tuple[asyncio.Future[bytes], int]] = {}
        self._under_way = 0
        self._number = 0
        self._out: list[bytes] = []
        self._greeted: asyncio.Future[Welcome] = self._loop.create_future()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._drained: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.socket = transport.get_extra_info("socket")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose("the link to the audit log's writer was lost")
        self._closed.set_result(None)

    async def closed(self) -> None:
        """Returns once the connection is gone."""
        await asyncio.shield(self._closed)

    @property
    def waiting(self) -> int:
        """Requests without an answer yet."""
        return len(self._waiting)

    async def greet(self, hello: Hello) -> Welcome:
        self._transport.write(framed(msgspec.json.encode(hello)))
        return await self._greeted

    async def ended(self) -> str:
        """Why it ended, once it did."""
        return await asyncio.shield(self._ended)

    async def drained(self) -> None:
        """Returns once nothing waits for an answer."""
        if self._waiting:
            self._drained = self._loop.create_future()
            await self._drained

    def ask(self, op: Op, body: bytes) -> "asyncio.Future[bytes]":
        if len(self._waiting) >= MAX_WAITING or self._under_way > MAX_UNDER_WAY:
            raise LogUnavailable("the audit log takes no entries: too many wait for its writer")
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        data = request(op, number, body)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        done: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[number] = done, len(data)
        self._under_way += len(data)
        return done

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        try:
            while (frame := self._frames.next()) is not None:
                if self._greeted.done():
                    self._answer(frame)
                else:
                    self._greeted.set_result(welcomed(frame))
        except Malformed:
            self.lose("the answer of the audit log's writer is not understood")
        except ChartgateError as exc:
            self.lose(str(exc), exc)

    def _answer(self, frame: bytes) -> None:
        status, number, body = taken_apart(frame)
        found = self._waiting.pop(number, None)
        if found is None:
            raise Malformed("an answer to no question")
        done, size = found
        self._under_way -= size
        if not done.done():  # else its waiter went away
            if status == Status.OK:
                done.set_result(body)
            else:
                done.set_exception(raised(status, body))
        if not self._waiting and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def lose(self, reason: str, why: ChartgateError | None = None) -> None:
        """The link is gone: nobody waits any longer."""
        if self._ended.done():
            return
        self._ended.set_result(reason)
        self._transport.abort()
        waiting, self._waiting = self._waiting, {}
        for done, _ in waiting.values():
            if not done.done():
                done.set_exception(LogUnavailable(reason))
        if not self._greeted.done():
            self._greeted.set_exception(why or LogUnavailable(reason))
            self._greeted.exception()  # told by whoever greets, if anybody still does
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
