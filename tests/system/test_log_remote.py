"""The log from other processes: answers only for what is recorded, and an end for every waiter."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_link import LogLink
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.log_socket import LogSocket, serve_log_socket
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.signing import load_or_create_signer
from chartgate.errors import LogUnavailable, Refused
from chartgate.model.event import Alarm, AuditRead, NodeStopped, encode

pytestmark = pytest.mark.system

AT = "2026-03-02T09:00:00.000000Z"


def alarm(number: int) -> bytes:
    return encode(Alarm(at=AT, node="n1", what="test", words=str(number)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "run" / "log.sock"


@asynccontextmanager
async def writing(tmp_path: Path, path: Path) -> AsyncIterator[LogSocket]:
    signer = load_or_create_signer(tmp_path / "log.key", "test.example/log")
    writer = LogWriter(LogFiles.open(tmp_path / "log", signer))
    async with await serve_log_socket(path, writer, node="n1", origin=writer.origin) as listening:
        yield listening
    await writer.close()


def stored(tmp_path: Path) -> list[bytes]:
    return [entry for _, entry in LogReader(tmp_path / "log").entries()]


async def test_a_thousand_waiters_get_their_own_indexes(tmp_path: Path, path: Path) -> None:
    async with writing(tmp_path, path), await RemoteLog.open(path) as log:
        indexes = await asyncio.gather(*(log.append([alarm(n)]) for n in range(1000)))
        assert log.origin == "test.example/log"
        assert log.size == 1000
        entries = stored(tmp_path)
        assert [entries[i] for i in indexes] == [alarm(n) for n in range(1000)]
        size, checkpoint = await log.head()
        assert (size, checkpoint) == LogReader(tmp_path / "log").head()
        assert log.checkpoint == checkpoint


async def test_what_is_placed_can_be_waited_for(tmp_path: Path, path: Path) -> None:
    async with writing(tmp_path, path), await RemoteLog.open(path) as log:
        index = await log.place([alarm(0), alarm(1)])
        assert index == 0
        log.post([alarm(2)])
        await log.settled(1)
        assert stored(tmp_path)[:2] == [alarm(0), alarm(1)]
        assert await log.append([alarm(3)]) == 3
        with pytest.raises(LogUnavailable, match="no such entry"):
            await log.settled(99)


async def test_what_a_worker_may_not_write_is_refused_and_the_link_goes_on(
    tmp_path: Path, path: Path
) -> None:
    read = encode(AuditRead(at=AT, node="n1", person="p", question="q", allowed=True))
    async with writing(tmp_path, path), await RemoteLog.open(path) as log:
        with pytest.raises(Refused, match="the gate alone"):
            await log.append([read])
        with pytest.raises(Refused, match="at most"):
            await log.append([b"x" * 65_536])
        with pytest.raises(Refused, match="without entries"):
            await log.append([])
        assert await log.append([alarm(0)]) == 0
        log.post([read])
        with pytest.raises(Refused, match="the gate alone"):
            await log.append([read])  # answered behind what was posted
        with pytest.raises(LogUnavailable, match="before this one was not recorded"):
            await log.append([alarm(1)])
        assert await log.append([alarm(1)]) == 1


async def test_every_waiter_is_told_when_the_link_is_lost_and_it_is_made_again(
    tmp_path: Path, path: Path
) -> None:
    signer = load_or_create_signer(tmp_path / "log.key", "test.example/log")
    ups: list[bool] = []
    back = asyncio.Event()

    def on_link(up: bool) -> None:
        ups.append(up)
        if len(ups) == 3:
            back.set()

    first = await serve_log_socket(path, Silent())
    log = await RemoteLog.open(path, on_link=on_link)
    waiting = [asyncio.ensure_future(log.append([alarm(n)])) for n in range(50)]
    await asyncio.sleep(0.01)
    for caller in tuple(first.callers):
        caller.drop()
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, LogUnavailable)
    with pytest.raises(LogUnavailable, match="lost"):
        await log.append([alarm(0)])
    await first.close()
    writer = LogWriter(LogFiles.open(tmp_path / "log", signer))
    async with await serve_log_socket(path, writer):
        await asyncio.wait_for(back.wait(), 5)
        assert log.is_linked
        assert await log.append([alarm(7)]) == 0
        await log.close()
    await writer.close()
    assert ups == [True, False, True]
    with pytest.raises(LogUnavailable, match="closing"):
        await log.append([alarm(0)])


class Silent:
    """A log that takes everything and never answers."""

    size, checkpoint, is_full = 0, "", False

    def submit(self, entries: object, answered: object, *, durable: bool = True) -> None:
        pass


async def test_nobody_listens(path: Path) -> None:
    with pytest.raises(LogUnavailable, match="not reached"):
        await RemoteLog.open(path)
    with pytest.raises(LogUnavailable, match="no gateway"):
        await asyncio.to_thread(LogLink(path).append, [alarm(0)])


async def test_threads_share_a_link_and_their_commits(tmp_path: Path, path: Path) -> None:
    async with writing(tmp_path, path) as listening:
        with LogLink(path) as link:
            got: dict[int, int] = {}

            def work(thread: int) -> None:
                for turn in range(20):
                    number = thread * 20 + turn
                    got[number] = link.append([alarm(number)])

            def all_of_them() -> None:
                threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(timeout=30)

            await asyncio.to_thread(all_of_them)
            assert len(listening.callers) == 1
            entries = stored(tmp_path)
            assert len(entries) == 320
            assert all(entries[index] == alarm(number) for number, index in got.items())
            index = await asyncio.to_thread(link.place, [alarm(9)])
            await asyncio.to_thread(link.settled, index)
            assert await asyncio.to_thread(link.head) == LogReader(tmp_path / "log").head()
            read = encode(AuditRead(at=AT, node="n1", person="p", question="q", allowed=True))
            with pytest.raises(Refused, match="the gate alone"):
                await asyncio.to_thread(link.append, [read])


async def test_threads_that_wait_are_let_go_when_the_link_is_lost(path: Path) -> None:
    listening = await serve_log_socket(path, Silent())
    link = LogLink(path, timeout=5)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            link.append([alarm(0)])
        except LogUnavailable as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    await asyncio.sleep(0.05)
    for caller in tuple(listening.callers):
        caller.drop()
    await asyncio.to_thread(lambda: [thread.join(5) for thread in threads])
    assert len(failures) == 8
    await listening.close()


async def test_a_writer_that_does_not_answer_in_time_has_recorded_nothing(path: Path) -> None:
    async with await serve_log_socket(path, Silent()):
        link = LogLink(path, timeout=0.05)
        with pytest.raises(LogUnavailable, match="did not confirm"):
            await asyncio.to_thread(link.append, [alarm(0)])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_a_child_makes_a_link_of_its_own(tmp_path: Path, path: Path) -> None:
    async with writing(tmp_path, path):
        link = LogLink(path)

        def fork() -> Iterator[int]:
            yield link.append([alarm(0)])
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = 0 if link.append([alarm(1)]) == 1 else 2
                finally:
                    os._exit(status)
            yield os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            yield link.append([encode(NodeStopped(at=AT, node="n1", reason="x"))])

        assert await asyncio.to_thread(lambda: list(fork())) == [0, 0, 2]
        link.close()


async def test_more_than_a_request_holds_is_recorded_in_order(tmp_path: Path, path: Path) -> None:
    large = [encode(Alarm(at=AT, node="n1", what="t", words=f"{n} " * 15_000)) for n in range(40)]
    assert sum(map(len, large)) > 1 << 20
    async with writing(tmp_path, path), await RemoteLog.open(path) as log:
        assert await log.append(large) == 0
        assert stored(tmp_path) == large
        with LogLink(path) as link:
            assert await asyncio.to_thread(link.append, large) == 40
        assert stored(tmp_path) == large * 2
        assert log.size == 40


def test_both_ends_work_on_uvloop(tmp_path: Path, path: Path) -> None:
    async def main() -> None:
        async with writing(tmp_path, path):
            async with await RemoteLog.open(path) as log:
                await asyncio.gather(*(log.append([alarm(n)]) for n in range(100)))
                await log.settled(await log.place([alarm(100)]))
                assert (await log.head())[0] == 101
            link = LogLink(path)
            assert await asyncio.to_thread(link.append, [alarm(101)]) == 101
            link.close()
            with pytest.raises(LogUnavailable, match="not reached"):
                await RemoteLog.open(tmp_path / "nobody")

    uvloop.run(main())
    assert len(stored(tmp_path)) == 102
