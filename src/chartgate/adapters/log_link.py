"""The node's audit log from a process without an event loop: many threads, one connection.

Rules kept: ``append`` returns only when the writer has answered; a link that is lost, or an answer
that does not come in time, raises ``LogUnavailable``, and nothing may be released: the entries may
or may not be in the log. Threads that wait at the same time share one commit: each sends at once,
and one of them reads for all, so that a single thread pays for no hand-over.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from chartgate.adapters.log_frames import (
    VERSION,
    Frames,
    Hello,
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
from chartgate.adapters.unix_place import peer_uid
from chartgate.errors import ChartgateError, Corrupt, LogUnavailable, Refused

SECONDS: Final = 10.0
_CHUNK: Final = 1 << 16


TokenSource = str | Callable[[], str]
"""A token, or what gives the one that counts now: it is asked at every greeting, so that a token that
was rotated needs no restart."""


class NoGateway(LogUnavailable):
    """Nobody listens at the socket: the log may be opened directly."""

    code = "no_gateway"


class _Slot:
    """One request under way. ``turn`` is held until there is an answer, or the reading to do."""

    __slots__ = ("answer", "turn")

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.turn.acquire()
        self.answer: tuple[int, bytes] | None = None


class LogLink:
    """A link to the writer at ``path``; made when first needed, and again after it was lost.

    ``kind`` is ``worker``, ``command`` or ``app``, which needs ``token``. For all threads; after a
    fork the child makes a link of its own.
    """

    def __init__(
        self,
        path: Path,
        *,
        kind: str = "worker",
        token: TokenSource = "",
        timeout: float = SECONDS,
    ) -> None:
        self._path = path
        self._kind = kind
        self._token = token
        self._timeout = timeout
        self._lock = threading.Lock()
        self._wire: _Wire | None = None
        self._pid = os.getpid()

    @property
    def welcome(self) -> Welcome:
        """What the writer said when the link was made: its log, and whom it takes us for."""
        return self._link().welcome

    def append(self, entries: Sequence[bytes], *, durable: bool = True) -> int:
        """The index of the first of these entries, once they are on the medium."""
        op = Op.APPEND if durable else Op.RELAXED
        runs = in_requests(entries)
        index = unpack_number(self._ask(op, pack_entries(next(runs))))
        for run in runs:
            self._ask(op, pack_entries(run))
        return index

    def place(self, entries: Sequence[bytes]) -> int:
        """The index of the first; on the medium within 5 ms, or see ``settled``."""
        return unpack_number(self._ask(Op.PLACE, pack_entries(entries)))

    def settled(self, index: int) -> None:
        """Returns once the entry with this index is on the medium."""
        self._ask(Op.SETTLE, pack_number(index))

    def head(self) -> tuple[int, str]:
        """Size, and the signed checkpoint over exactly as many entries."""
        return unpack_head(self._ask(Op.HEAD, b""))

    def close(self) -> None:
        """End the link; whoever waits gets ``LogUnavailable``."""
        with self._lock:
            wire, self._wire = self._wire, None
        if wire is not None:
            wire.lose("the link to the audit log was closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, op: Op, body: bytes) -> bytes:
        status, said = self._link().ask(op, body)
        if status != Status.OK:
            raise raised(status, said)
        return said

    def _link(self) -> "_Wire":
        wire = self._wire
        if wire is not None and not wire.is_lost and self._pid == os.getpid():
            return wire
        with self._lock:
            if self._pid != os.getpid():  # a fork: the parent goes on with its link
                self._wire, self._pid = None, os.getpid()
            if self._wire is None or self._wire.is_lost:
                hello = greeting(self._kind, self._token)
                self._wire = _Wire(self._path, hello, self._timeout)
            return self._wire


class _Wire:
    """One connection, greeted."""

    def __init__(self, path: Path, hello: Hello, timeout: float) -> None:
        self._sending = threading.Lock()
        self._slots: dict[int, _Slot] = {}
        self._guard = threading.Lock()
        self._is_read = False
        self._number = 0
        self._timeout = timeout
        self._frames = Frames()
        self._socket = connected(path, timeout, hello.kind)
        self.reason = ""
        try:
            self.welcome = self._greet(hello)
        except BaseException:
            self._socket.close()
            raise

    @property
    def is_lost(self) -> bool:
        return bool(self.reason)

    def ask(self, op: Op, body: bytes) -> tuple[int, bytes]:
        slot = _Slot()
        with self._guard:
            if self.reason:
                raise LogUnavailable(self.reason)
            self._number = number = (self._number + 1) & 0xFFFFFFFF
            data = request(op, number, body)
            self._slots[number] = slot
            reads = not self._is_read
            self._is_read = True
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError:
            self.lose("the gateway did not confirm the log entry")
        while slot.answer is None:
            if self.reason:
                raise LogUnavailable(self.reason)
            if reads:
                self._read_for(slot)
            elif not slot.turn.acquire(timeout=self._timeout):
                self.lose("the gateway did not confirm the log entry in time")
            else:
                reads = slot.answer is None  # it is ours to read now
        return slot.answer

    def _read_for(self, slot: _Slot) -> None:
        """Read and hand out answers until ``slot`` has one; then let another thread read."""
        try:
            while slot.answer is None and not self.reason:
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise EOFError
                self._frames.feed(data)
                while (frame := self._frames.next()) is not None:
                    status, number, body = taken_apart(frame)
                    with self._guard:
                        waiting = self._slots.pop(number, None)
                    if waiting is None:
                        raise Corrupt("an answer to no question")
                    waiting.answer = (status, body)
                    if waiting is not slot:
                        waiting.turn.release()
        except (OSError, EOFError, Corrupt):
            self.lose("the gateway did not confirm the log entry")
        else:
            with self._guard:
                heir = next(iter(self._slots.values()), None)
                self._is_read = heir is not None
            if heir is not None:
                heir.turn.release()

    def lose(self, reason: str) -> None:
        """The link is gone: wake everybody."""
        with self._guard:
            if self.reason:
                return
            self.reason = reason
            slots, self._slots = self._slots, {}
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for slot in slots.values():
            with contextlib.suppress(RuntimeError):
                slot.turn.release()

    def _greet(self, hello: Hello) -> Welcome:
        try:
            self._socket.sendall(framed(msgspec.json.encode(hello)))
            while (frame := self._frames.next()) is None:
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise EOFError
                self._frames.feed(data)
        except (OSError, EOFError, Corrupt) as exc:
            raise LogUnavailable("the gateway did not confirm the log entry") from exc
        return welcomed(frame)


def connected(path: Path, timeout: float, kind: str) -> socket.socket:
    """A connection to the writer, and to nobody else who might listen there."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout)
        try:
            link.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoGateway("no gateway is running here") from None
        except OSError as exc:
            raise LogUnavailable(f"the gateway's log socket: {exc.strerror or exc}") from exc
        check_writer(link, path, kind)
    except BaseException:
        link.close()
        raise
    return link


def greeting(kind: str, token: TokenSource) -> Hello:
    """What the writer is told of the caller, with the token that counts now."""
    return Hello(VERSION, kind, token if isinstance(token, str) else token())


def check_writer(link: socket.socket, path: Path, kind: str) -> None:
    """Raise unless who listens is who may: ourselves or root, and for applications the owner of
    the socket's folder, who decides what is in it."""
    trusted = {os.geteuid(), 0}
    if kind == "app":
        trusted.add(path.parent.stat().st_uid)
    if peer_uid(link) not in trusted:
        raise LogUnavailable("the log socket is served by another user")


def welcomed(frame: bytes) -> Welcome:
    """The writer's greeting; raises what it says is wrong."""
    try:
        said = msgspec.json.decode(frame, type=Welcome)
    except msgspec.MsgspecError as exc:
        raise LogUnavailable("the gateway's answer is not understood") from exc
    if said.error:
        error: ChartgateError = (
            LogUnavailable(said.error) if said.unavailable else Refused(said.error)
        )
        raise error
    if said.v != VERSION:
        raise LogUnavailable("the gateway's answer is not understood")
    return said


def append_through(path: Path, entries: Sequence[bytes], *, timeout: float = SECONDS) -> int:
    """Append through the running writer, as a command; answers the index of the first entry.

    Raises ``NoGateway`` when nobody listens; any other ``LogUnavailable`` means that the entries
    may or may not be in the log, and that nothing may be released.
    """
    with LogLink(path, kind="command", timeout=timeout) as link:
        return link.append(entries)
