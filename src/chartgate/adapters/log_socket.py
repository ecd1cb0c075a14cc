"""Appending to the log of a running gateway: one writer per node, reached by a Unix socket.

Rules kept: the socket is 0600 in a folder of mode 0700, and the kernel, not the caller, says who
is calling: only this process's own user or root is heard. A frame is a 32-bit big-endian length
and that many bytes of JSON, at most 1 MiB; every entry must decode as an event of a kind this
socket takes, so nobody slips a decision into the log from outside the gate. The answer is sent
after the entries are on disk; a caller that gets no answer must act as if nothing was recorded.
"""

import asyncio
import contextlib
import logging
import socket
import stat
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from os import geteuid
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from chartgate.errors import ChartgateError, LogUnavailable, Misconfigured, Refused
from chartgate.model.event import (
    AuditRead,
    Event,
    LoginRefused,
    PolicyStep,
    PolicyStepRefused,
    decode,
)

Append = Callable[[Sequence[bytes]], Awaitable[int]]

MAX_FRAME: Final = 1 << 20
_IDLE_SECONDS: Final = 10.0
_GRACE_SECONDS: Final = 1.0
_LENGTH: Final = struct.Struct(">I")
_PATH_LIMIT: Final = 103

_logger = logging.getLogger(__name__)


class _Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    append: tuple[bytes, ...]


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    index: int = -1
    error: str = ""
    unavailable: bool = False


class NoGateway(LogUnavailable):
    """Nobody listens at the socket: the log may be opened directly."""

    code = "no_gateway"


class LogSocket:
    """A listening socket; close it to stop taking entries."""

    def __init__(
        self, server: asyncio.Server, path: Path, conversations: "set[asyncio.Task[Any]]"
    ) -> None:
        self._server = server
        self._path = path
        self._conversations = conversations

    async def close(self) -> None:
        """Stop listening, let conversations under way end, remove the socket."""
        self._server.close()
        under_way = tuple(self._conversations)
        if under_way:
            await asyncio.wait(under_way, timeout=_GRACE_SECONDS)
            for task in under_way:
                task.cancel()
            await asyncio.wait(under_way)
        _remove(self._path)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def serve_log_socket(
    path: Path,
    append: Append,
    *,
    kinds: tuple[type[Event], ...] = (AuditRead, LoginRefused, PolicyStep, PolicyStepRefused),
) -> LogSocket:
    """Listen at ``path`` and hand what arrives to ``append``, which answers once it is on disk.

    The caller holds the instance's lock: a socket left there by a predecessor is removed.
    """
    conversations: set[asyncio.Task[Any]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        try:
            await _converse(reader, writer, append, kinds)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the caller went away, or stopped in the middle of a frame
        finally:
            conversations.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_unix_server(converse, sock=_bound(path))
    return LogSocket(server, path, conversations)


def append_through(path: Path, entries: Sequence[bytes], *, timeout: float = 10.0) -> int:
    """Append through the running gateway; answers the index of the first entry.

    Raises ``NoGateway`` when nobody listens; any other ``LogUnavailable`` means that the entries
    may or may not be in the log, and that nothing may be released.
    """
    frame = msgspec.json.encode(_Ask(tuple(entries)))
    if len(frame) > MAX_FRAME:
        raise Refused("too many bytes for one append")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        try:
            link.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoGateway("no gateway is running here") from None
        except OSError as exc:
            raise LogUnavailable(f"the gateway's log socket: {exc.strerror or exc}") from exc
        if _peer_uid(link) not in {geteuid(), 0}:
            raise LogUnavailable("the log socket is served by another user")
        try:
            link.sendall(_LENGTH.pack(len(frame)) + frame)
            (length,) = _LENGTH.unpack(_receive(link, _LENGTH.size))
            if length > MAX_FRAME:
                raise LogUnavailable("the gateway's answer is not understood")
            answer = msgspec.json.decode(_receive(link, length), type=_Answer)
        except (OSError, EOFError) as exc:
            raise LogUnavailable("the gateway did not confirm the log entry") from exc
        except msgspec.MsgspecError as exc:
            raise LogUnavailable("the gateway's answer is not understood") from exc
    if answer.error or answer.index < 0:
        raise (LogUnavailable if answer.unavailable else Refused)(answer.error or "no index")
    return answer.index


async def _converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    append: Append,
    kinds: tuple[type[Event], ...],
) -> None:
    caller = _peer_uid(writer.get_extra_info("socket"))
    if caller not in {geteuid(), 0}:
        _logger.warning("log socket: refused a caller of another user")
        return
    while True:
        async with asyncio.timeout(_IDLE_SECONDS):
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if length > MAX_FRAME:
                return
            frame = await reader.readexactly(length)
        answer = msgspec.json.encode(await _answer(frame, append, kinds))
        writer.write(_LENGTH.pack(len(answer)) + answer)
        await writer.drain()


async def _answer(frame: bytes, append: Append, kinds: tuple[type[Event], ...]) -> _Answer:
    try:
        entries = msgspec.json.decode(frame, type=_Ask).append
        events = [decode(entry) for entry in entries]
    except msgspec.MsgspecError:
        return _Answer(error="not a log entry of a version this gateway knows")
    if not entries:
        return _Answer(error="nothing to append")
    for event in events:
        if not isinstance(event, kinds):
            return _Answer(error="events of this kind are written by the gate alone")
    try:
        return _Answer(index=await append(entries))
    except ChartgateError as exc:
        return _Answer(error=str(exc), unavailable=isinstance(exc, LogUnavailable))


def _bound(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _check_place(path)
        listening.bind(str(path))
        path.chmod(0o600)  # before listening: nobody can connect yet
    except OSError as exc:
        listening.close()
        raise Misconfigured(f"cannot listen at {path}: {exc.strerror}") from exc
    except BaseException:
        listening.close()
        raise
    return listening


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _check_place(path: Path) -> None:
    if len(str(path).encode()) > _PATH_LIMIT:
        raise Misconfigured(f"the path of a Unix socket has at most {_PATH_LIMIT} bytes: {path}")
    folder = path.parent.stat()
    if folder.st_uid != geteuid() or stat.S_IMODE(folder.st_mode) & 0o077:
        raise Misconfigured(f"the folder {path.parent} is open to others: chmod 0700 it")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Misconfigured(f"{path} is in the way and is not a socket")
        path.unlink()


def _peer_uid(link: socket.socket) -> int:
    """The user at the other end, as the kernel knows it."""
    if sys.platform == "darwin":
        # struct xucred of <sys/ucred.h>: version, uid, …; SOL_LOCAL = 0, LOCAL_PEERCRED = 1
        found: tuple[int, int] = struct.unpack_from("=II", link.getsockopt(0, 1, 76))
        return found[1]
    pid_uid_gid = struct.Struct("=iII")
    credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, pid_uid_gid.size)
    uid: int = pid_uid_gid.unpack(credentials)[1]
    return uid


def _receive(link: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = link.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
