"""The log socket: who is heard, what is taken, and that no answer means not recorded."""
# ruff: noqa: ASYNC240  (a test may look at a file while nothing else runs on its loop)

import asyncio
import contextlib
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from chartgate.adapters import log_socket
from chartgate.adapters.audit_log import Answered
from chartgate.adapters.log_frames import Op, framed, pack_entries, request
from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.log_socket import NoGateway, append_through, serve_log_socket
from chartgate.errors import LogUnavailable, Misconfigured, Refused
from chartgate.model.event import AuditRead, NodeStopped, encode

pytestmark = pytest.mark.system

READ = encode(
    AuditRead(
        at="2026-03-02T09:00:00.000000Z",
        node="n1",
        person="p_0000000000000001",
        question="the newest events",
        allowed=True,
    )
)


class MemoryLog:
    """A log that keeps entries in memory, and fails when told to."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.failure: str | None = None
        self.is_full = False
        self.held: list[Callable[[], None]] | None = None
        """Set to a list: answers wait there."""

    @property
    def size(self) -> int:
        return len(self.entries)

    checkpoint = "a checkpoint"

    def submit(self, entries: Sequence[bytes], answered: Answered, *, durable: bool = True) -> None:
        if self.failure is not None:
            raise LogUnavailable(self.failure)
        index = self.take(entries)
        if self.held is None:
            answered(index)
        else:
            self.held.append(lambda: answered(index))

    def take(self, entries: Sequence[bytes]) -> int:
        self.entries += entries
        return len(self.entries) - len(entries)

    async def settled(self, index: int) -> None:
        if index >= len(self.entries):
            raise LogUnavailable("the audit log has promised no such entry")

    async def room(self) -> None:
        self.is_full = False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    return folder / "log.sock"


async def test_entries_arrive_whole_and_are_numbered(path: Path) -> None:
    log = MemoryLog()
    async with await serve_log_socket(path, log):
        assert await asyncio.to_thread(append_through, path, [READ]) == 0
        assert await asyncio.to_thread(append_through, path, [READ, READ]) == 1
    assert log.entries == [READ] * 3
    assert not path.exists()


async def test_the_socket_is_closed_to_others(path: Path) -> None:
    async with await serve_log_socket(path, MemoryLog()):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_an_open_folder_is_refused(path: Path) -> None:
    path.parent.chmod(0o755)
    with pytest.raises(Misconfigured, match="open to others"):
        await serve_log_socket(path, MemoryLog())


async def test_a_predecessor_s_socket_is_replaced_but_nothing_else(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    log = MemoryLog()
    async with await serve_log_socket(path, log):
        await asyncio.to_thread(append_through, path, [READ])
    path.write_text("precious")
    with pytest.raises(Misconfigured, match="not a socket"):
        await serve_log_socket(path, log)
    assert path.read_text() == "precious"


async def test_a_log_that_cannot_be_written_is_said_so(path: Path) -> None:
    log = MemoryLog()
    log.failure = "disk full"
    async with await serve_log_socket(path, log):
        with pytest.raises(LogUnavailable, match="disk full"):
            await asyncio.to_thread(append_through, path, [READ])


@pytest.mark.parametrize(
    "entry",
    [
        encode(NodeStopped(at="2026-03-02T09:00:00.000000Z", node="n1", reason="x")),
        b'{"kind":"decision"}',
        b"\xff\x00",
    ],
    ids=["an event of the gate's own", "half an event", "no event at all"],
)
async def test_nothing_but_a_question_s_own_event_is_taken(path: Path, entry: bytes) -> None:
    log = MemoryLog()
    async with await serve_log_socket(path, log):
        with pytest.raises(Refused):
            await asyncio.to_thread(append_through, path, [entry])
        with pytest.raises(Refused):
            await asyncio.to_thread(append_through, path, [])
    assert log.entries == []


@pytest.mark.parametrize("frame", [struct.pack(">I", 2**31), b"\x00\x00\x00\x02{]", b"\x00"])
async def test_a_hostile_frame_ends_its_own_conversation_alone(path: Path, frame: bytes) -> None:
    log = MemoryLog()
    async with await serve_log_socket(path, log):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(frame)
        await writer.drain()
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        assert await asyncio.to_thread(append_through, path, [READ]) == 0


def test_without_a_gateway_the_caller_is_told(path: Path) -> None:
    with pytest.raises(NoGateway):
        append_through(path, [READ])
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NoGateway):
        append_through(path, [READ])


def test_a_gateway_that_dies_before_it_answers_has_recorded_nothing_we_may_rely_on(
    path: Path,
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        child = os.fork()
        if child == 0:
            taken, _ = listening.accept()
            taken.recv(1)
            os._exit(0)
        try:
            with pytest.raises(LogUnavailable, match="did not confirm"):
                append_through(path, [READ])
        finally:
            os.waitpid(child, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
async def test_another_user_is_not_heard() -> None:
    log = MemoryLog()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.sock"
        async with await serve_log_socket(path, log):
            # the folder keeps others out; opened here to see that the kernel is asked as well
            path.parent.chmod(0o711)
            path.chmod(0o666)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _STRANGER, str(path)
            )
            assert await process.wait() == 0
    assert log.entries == []


_STRANGER = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
try:
    link.sendall(b"\\0\\0\\0\\x02{}")
    answer = link.recv(10)
except (BrokenPipeError, ConnectionResetError):
    answer = b""
sys.exit(len(answer))
"""


async def greeted(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(framed(b'{"v":2,"kind":"command"}'))
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    assert b"error" not in await reader.readexactly(length)
    return reader, writer


async def test_a_caller_with_too_much_under_way_waits_and_the_others_do_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_socket, "MAX_UNDER_WAY", 10_000)
    log = MemoryLog()
    log.held = []
    async with await serve_log_socket(path, log):
        reader, writer = await greeted(path)
        flood = b"".join(request(Op.APPEND, n, pack_entries([READ])) for n in range(5000))
        writer.write(flood)
        other = RemoteLog(path, kind="command")
        await other.start()
        log.held, held = None, log.held
        assert await asyncio.wait_for(other.append([READ]), 5) > 0
        assert 0 < len(held) < 200, "what is under way is bounded"
        await other.close()
        for answer_now in held:
            answer_now()
        answers = [await reader.readexactly(4 + 5 + 8) for _ in range(5000)]
        assert len(log.entries) == 5001
        assert {struct.unpack(">IBIQ", a)[2] for a in answers} == set(range(5000))
        writer.close()


async def test_who_does_not_read_her_answers_is_dropped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_socket, "MAX_UNREAD", 4096)
    log = MemoryLog()
    async with await serve_log_socket(path, log) as listening:
        _, writer = await greeted(path)
        asks = request(Op.HEAD, 1) * 60_000
        with contextlib.suppress(ConnectionError):
            writer.write(asks)
            await asyncio.wait_for(writer.drain(), 10)
            for _ in range(100):
                if not listening.callers:
                    break
                writer.write(asks)
                await asyncio.wait_for(writer.drain(), 10)
        assert not listening.callers
        writer.transport.abort()
        assert await asyncio.to_thread(append_through, path, [READ]) == 0


async def test_a_full_log_makes_its_callers_wait(path: Path) -> None:
    log = MemoryLog()
    log.is_full = True
    async with await serve_log_socket(path, log):
        assert await asyncio.to_thread(append_through, path, [READ]) == 0


async def test_too_many_callers_are_turned_away(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_socket, "MAX_CALLERS", 2)
    async with await serve_log_socket(path, MemoryLog()):
        callers = [await greeted(path) for _ in range(2)]
        with pytest.raises(LogUnavailable):
            await asyncio.to_thread(append_through, path, [READ])
        for _, writer in callers:
            writer.close()


@pytest.mark.parametrize(
    "hello", [b"{}", b'{"v":1,"kind":"command"}', b'{"v":2,"kind":"x"}', b"[]", b"\xff"]
)
async def test_a_greeting_that_is_not_understood_ends_the_conversation(
    path: Path, hello: bytes
) -> None:
    async with await serve_log_socket(path, MemoryLog()):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(framed(hello) + request(Op.APPEND, 1, pack_entries([READ])))
        said = await reader.read()
        assert not said or b"error" in said
        writer.close()


@pytest.mark.parametrize(
    "frame",
    [
        framed(b"\1"),
        request(9, 1),  # type: ignore[arg-type]
        request(Op.APPEND, 1, b"\0"),
        request(Op.APPEND, 1, b"\0\5ab"),
        request(Op.SETTLE, 1, b"\0"),
    ],
)
async def test_a_request_that_is_none_ends_the_conversation(path: Path, frame: bytes) -> None:
    log = MemoryLog()
    async with await serve_log_socket(path, log):
        reader, writer = await greeted(path)
        writer.write(frame)
        assert await reader.read() == b""
        writer.close()
    assert not log.entries
