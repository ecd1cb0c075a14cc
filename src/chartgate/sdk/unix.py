"""The service beside us, over its Unix socket: frames of a length and a JSON value.

The protocol: 4 bytes, big-endian, the length of what follows; then JSON, asked
``{"v":1,"op":…,"token":…,"id":n,"body":{…}}``, answered ``{"id":n,"status":…,"body":{…}}``.
The rule kept: an answer belongs to the question with its ``id``, or the connection is not used again;
a frame is bounded before it is read. No token is sent before the kernel has said who listens: in a
folder where others may put a socket, whoever was there first would be given it.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import stat
import time
from pathlib import Path
from threading import Lock
from typing import Any, Final

import msgspec

from chartgate.adapters.unix_place import peer_uid
from chartgate.sdk.calling import Call, NoReply, NotTrusted, Reply, encoded, why

VERSION: Final = 1
MAX_ANSWER: Final = 16 << 20
_IDLE_KEPT: Final = 16


def frame(call: Call, token: str, number: int) -> bytes:
    """One question as it travels."""
    asked: dict[str, Any] = {"v": VERSION, "op": call.op, "id": number, "body": call.body}
    if token:
        asked["token"] = token
    if call.request_id:
        asked["request"] = call.request_id
    if call.trace:
        asked["trace"] = call.trace
    data = encoded(asked)
    return len(data).to_bytes(4, "big") + data


class _Answered(msgspec.Struct, frozen=True):
    id: int
    status: int
    body: Any = None


_decoder: Final = msgspec.json.Decoder(_Answered)


def _size(head: bytes) -> int:
    size = int.from_bytes(head, "big")
    if not 0 < size <= MAX_ANSWER:
        raise NoReply("a frame of that length is not taken")
    return size


def _answered(data: bytes) -> _Answered:
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as exc:
        raise NoReply("what came is no answer") from exc


def is_trusted(peer: int, own: int, folder_owner: int, folder_mode: int) -> bool:
    """Whether who listens may be asked: ourselves, root, or whoever alone fills the folder."""
    if peer in (own, 0):
        return True
    is_shared = folder_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return peer == folder_owner and not is_shared


def check_peer(link: socket.socket, path: str) -> None:
    """Raise ``NotTrusted`` unless who listens at the path is known to be the service."""
    folder = Path(path).parent.stat()
    if not is_trusted(peer_uid(link), os.geteuid(), folder.st_uid, folder.st_mode):
        raise NotTrusted(
            "who listens at its socket is not known: neither we nor root, nor the owner of a folder"
            " that nobody else may write to"
        )


class Unix:
    """Blocking: each question has a connection to itself while it waits."""

    def __init__(self, path: str | Path) -> None:
        self._path: Final = str(path)
        self._numbers: Final = itertools.count(1)
        self._lock: Final = Lock()
        self._idle: list[socket.socket] = []
        self._pid = os.getpid()

    def exchange(self, call: Call, token: str, seconds: float) -> Reply:
        ends = time.monotonic() + seconds
        number = next(self._numbers)
        data = frame(call, token, number)
        found = self._taken()
        try:
            if found is not None:
                try:
                    return self._asked(found, data, number, ends)
                except (OSError, NoReply):
                    # The service may have been restarted since: an old connection says nothing.
                    found.close()
            fresh = self._connected(ends)
            return self._asked(fresh, data, number, ends)
        except OSError as exc:
            raise NoReply(why(exc)) from exc

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.close()

    def _taken(self) -> socket.socket | None:
        with self._lock:
            if self._pid != os.getpid():
                # After a fork the other process has these connections too.
                for one in self._idle:
                    one.close()
                self._idle, self._pid = [], os.getpid()
            return self._idle.pop() if self._idle else None

    def _connected(self, ends: float) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(_left(ends))
            made.connect(self._path)
            check_peer(made, self._path)
        except BaseException:
            made.close()
            raise
        return made

    def _asked(self, link: socket.socket, data: bytes, number: int, ends: float) -> Reply:
        try:
            link.settimeout(_left(ends))
            link.sendall(data)
            answer = _answered(_exactly(link, _size(_exactly(link, 4, ends)), ends))
            if answer.id != number:
                raise NoReply("the answer is to another question")
        except BaseException:
            # Half a question or half an answer is in it.
            link.close()
            raise
        with self._lock:
            if len(self._idle) < _IDLE_KEPT and self._pid == os.getpid():
                self._idle.append(link)
                return Reply(answer.status, answer.body)
        link.close()
        return Reply(answer.status, answer.body)


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _exactly(link: socket.socket, size: int, ends: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        link.settimeout(_left(ends))
        more = link.recv(min(size - len(data), 1 << 16))
        if not more:
            raise NoReply("the service closed the connection")
        data += more
    return bytes(data)


class AsyncUnix:
    """For asyncio: all questions share one connection, answers come in any order."""

    def __init__(self, path: str | Path) -> None:
        self._path: Final = str(path)
        self._numbers: Final = itertools.count(1)
        self._link: _Link | None = None
        self._opening: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def exchange(self, call: Call, token: str, seconds: float) -> Reply:
        number = next(self._numbers)
        try:
            async with asyncio.timeout(seconds):
                link = await self._open()
                answer = await link.ask(frame(call, token, number), number)
        except (OSError, TimeoutError) as exc:
            raise NoReply(why(exc)) from exc
        return Reply(answer.status, answer.body)

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()

    async def _open(self) -> "_Link":
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # A test's client may have a loop for each request: a connection of another is of no use.
            self._link, self._opening, self._loop = None, None, loop
        if self._link is not None and self._link.is_open:
            return self._link
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._link is None or not self._link.is_open:
                reader, writer = await asyncio.open_unix_connection(self._path)
                try:
                    check_peer(writer.get_extra_info("socket"), self._path)
                except BaseException:
                    writer.close()
                    raise
                self._link = _Link(reader, writer)
            return self._link


class _Link:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader: Final = reader
        self._writer: Final = writer
        self._waiting: Final[dict[int, asyncio.Future[_Answered]]] = {}
        self._task: Final = asyncio.get_running_loop().create_task(self._read())

    @property
    def is_open(self) -> bool:
        return not self._task.done()

    async def ask(self, data: bytes, number: int) -> _Answered:
        waiting: asyncio.Future[_Answered] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            self._writer.write(data)
            await self._writer.drain()
            return await waiting
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(4)
                answer = _answered(await self._reader.readexactly(_size(head)))
                waiting = self._waiting.get(answer.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except (OSError, EOFError, NoReply):
            pass  # whoever waits is told below
        finally:
            self._writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionError("the service closed the connection"))
