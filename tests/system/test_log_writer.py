"""Group commit: order, one sync for many, cancellation, failure, bounded queue; and kill -9."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chartgate.adapters.log_disk import Disk
from chartgate.adapters.log_files import LogFiles, LogReader
from chartgate.adapters.log_verify import verify
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.signing import Signer, load_or_create_signer
from chartgate.errors import LogUnavailable, Refused

pytestmark = pytest.mark.system


class CountingDisk(Disk):
    """Counts syncs; fails from a chosen one on; can be slow enough for the worker thread."""

    def __init__(self, *, fail_at: int = 1 << 40) -> None:
        self.syncs = 0
        self.fail_at = fail_at

    def datasync(self, fd: int) -> None:
        self.syncs += 1
        if self.syncs >= self.fail_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().datasync(fd)

    def settle(self, fd: int) -> None:
        """Room ahead is not counted: nobody waits for it."""
        Disk.datasync(self, fd)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return load_or_create_signer(tmp_path / "log.key", "node.example/audit")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


async def test_waiters_of_one_moment_share_one_sync(log, signer):
    disk = CountingDisk()
    writer = LogWriter(LogFiles.open(log, signer, disk=disk))
    before = disk.syncs
    waiters = (writer.append([b"%d" % i, b"again"]) for i in range(100))
    assert await asyncio.gather(*waiters) == list(range(0, 200, 2))
    assert disk.syncs - before == 1
    await writer.close()
    assert [e for _, e in LogReader(log).entries()][::2] == [b"%d" % i for i in range(100)]
    assert verify(log, signer.vkey, None).size == 200


async def test_what_append_answers_is_already_readable(log, signer):
    writer = LogWriter(LogFiles.open(log, signer, segment_leaves=8))
    reader = LogReader(log)

    async def one(number: int) -> None:
        entry = b"entry of %d" % number
        for _ in range(10):
            index = await writer.append([entry])
            assert list(reader.entries(index, index + 1)) == [(index, entry)]

    await asyncio.gather(*map(one, range(5)))
    await writer.close()
    assert verify(log, signer.vkey, None).size == 50


async def test_readers_and_verifiers_beside_a_busy_writer_see_whole_commits(log, signer):
    writer = LogWriter(LogFiles.open(log, signer, segment_leaves=16))
    await writer.append([b"0"])
    busy = True

    def read_on() -> int:
        reader, seen, rounds = LogReader(log), 0, 0
        while busy:
            for index, entry in reader.entries(seen):
                assert (index, entry) == (seen, b"%d" % seen)
                seen += 1
            assert verify(log, signer.vkey, None).size >= seen
            rounds += 1
        return rounds

    reading = [asyncio.create_task(asyncio.to_thread(read_on)) for _ in range(2)]
    for number in range(1, 600):
        await writer.append([b"%d" % number])
        if any(task.done() for task in reading):
            break
    busy = False
    assert all(rounds > 1 for rounds in await asyncio.gather(*reading))
    await writer.close()


async def test_a_cancelled_waiter_leaves_the_others_their_indexes(log, signer):
    writer = LogWriter(LogFiles.open(log, signer))
    tasks = [asyncio.create_task(writer.append([b"%d" % i])) for i in range(30)]
    await asyncio.sleep(0)  # all are queued
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for index, result in enumerate(results):
        if index % 3:
            assert result == index
        else:
            assert isinstance(result, asyncio.CancelledError)
    await writer.close()
    assert [e for _, e in LogReader(log).entries()] == [b"%d" % i for i in range(30)]


async def test_posts_keep_their_place_and_are_written_at_close(log, signer):
    writer = LogWriter(LogFiles.open(log, signer))
    writer.post([b"a"])
    index = asyncio.create_task(writer.append([b"b"]))
    await asyncio.sleep(0)
    writer.post([b"c"])
    assert await index == 1
    await writer.close()
    assert [e for _, e in LogReader(log).entries()] == [b"a", b"b", b"c"]
    with pytest.raises(LogUnavailable, match="closing"):
        await writer.append([b"late"])


async def test_subscribers_hear_of_commits_in_order_and_cannot_stop_the_log(log, signer):
    writer = LogWriter(LogFiles.open(log, signer))
    heard: list[tuple[int, tuple[bytes, ...]]] = []
    faults: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    writer.subscribe(lambda *_: 1 // 0)
    end = writer.subscribe(lambda index, entries: heard.append((index, entries)))
    await writer.append([b"a", b"b"])
    await writer.append([b"c"])
    await asyncio.sleep(0)
    end()
    await writer.append([b"d"])
    await writer.close()
    assert heard == [(0, (b"a", b"b")), (2, (b"c",))]
    assert len(faults) == 3


async def test_a_failed_disk_answers_every_waiter_now_and_later(log, signer):
    disk = CountingDisk()
    writer = LogWriter(LogFiles.open(log, signer, disk=disk))
    assert await writer.append([b"good"]) == 0
    disk.fail_at = 0
    tasks = [asyncio.create_task(writer.append([b"%d" % i])) for i in range(20)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, LogUnavailable) for result in results)
    disk.fail_at = 1 << 40
    writer.post([b"nobody waits for this"])
    with pytest.raises(LogUnavailable, match="Input/output error"):
        await writer.append([b"later"])
    await writer.close()


class NoSegmentsDisk(Disk):
    """Room for the WAL, none for a segment."""

    def replace(self, path: Path, data: bytes) -> None:
        if path.suffix == ".seg":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().replace(path, data)


async def test_a_segment_that_cannot_be_packed_stops_the_log_and_loses_nothing(log, signer):
    writer = LogWriter(LogFiles.open(log, signer, segment_leaves=8, disk=NoSegmentsDisk()))
    acknowledged = {}

    async def fill() -> None:
        for number in range(100):
            entry = b"%d" % number
            acknowledged[await writer.append([entry])] = entry

    with pytest.raises(LogUnavailable, match="No space left"):
        await fill()
    await writer.close()
    assert 8 <= len(acknowledged) <= 16
    assert verify(log, signer.vkey, None).size >= len(acknowledged)
    writer = LogWriter(LogFiles.open(log, signer))
    for number in range(20):
        await writer.append([b"again %d" % number])
    await writer.close()
    assert acknowledged.items() <= dict(LogReader(log).entries()).items()
    assert verify(log, signer.vkey, None).size >= len(acknowledged) + 20
    assert list(log.glob("segment-*.seg"))


async def test_a_failed_post_is_raised_by_the_next_append(log, signer):
    disk = CountingDisk()
    writer = LogWriter(LogFiles.open(log, signer, disk=disk))
    await writer.append([b"good"])
    disk.fail_at = 0
    writer.post([b"lost"])
    with pytest.raises(LogUnavailable):
        await writer.append([b"next"])
    await writer.close()


async def test_a_full_queue_makes_appends_wait_and_refuses_posts(log, signer):
    writer = LogWriter(LogFiles.open(log, signer), max_queued=4)
    tasks = [asyncio.create_task(writer.append([b"%d" % i])) for i in range(40)]
    await asyncio.sleep(0)
    with pytest.raises(LogUnavailable, match="queue is full"):
        writer.post([b"one too many"])
    tasks[20].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(20), asyncio.CancelledError)
    assert results == list(range(39)), "first come, first written"
    await writer.close()


async def test_waiters_for_room_are_let_go_when_the_writer_closes_or_fails(log, signer):
    disk = CountingDisk()
    writer = LogWriter(LogFiles.open(log, signer, disk=disk), max_queued=2)
    tasks = [asyncio.create_task(writer.append([b"%d" % i])) for i in range(9)]
    await asyncio.sleep(0)
    await writer.close()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert results[:2] == [0, 1]
    assert all(isinstance(result, LogUnavailable) for result in results[2:])


async def test_an_impossible_entry_hurts_nobody_else(log, signer):
    writer = LogWriter(LogFiles.open(log, signer))
    good, bad = await asyncio.gather(
        writer.append([b"good"]), writer.append([bytes(70_000)]), return_exceptions=True
    )
    assert good == 0
    assert isinstance(bad, Refused)
    with pytest.raises(Refused):
        writer.post([])
    with pytest.raises(Refused, match="an append has at most"):
        await writer.append([bytes(65_535)] * 2049)
    assert await writer.append([b"still good"]) == 1
    await writer.close()


def test_a_committer_cancelled_with_its_loop_tells_its_waiters(log, signer):
    async def main() -> list[object]:
        writer = LogWriter(LogFiles.open(log, signer))
        await writer.append([b"a"])
        (committer,) = (t for t in asyncio.all_tasks() if t.get_name() == "audit log")
        waiter = asyncio.create_task(writer.append([b"b"]))
        await asyncio.sleep(0)
        committer.cancel()
        results = await asyncio.gather(waiter, return_exceptions=True)
        await writer.close()
        return results

    assert isinstance(asyncio.run(main())[0], LogUnavailable)


CHILD = """
import asyncio, sys
from pathlib import Path
from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.signing import load_or_create_signer

async def main(directory, round):
    signer = load_or_create_signer(directory / "log.key", "node.example/audit")
    writer = LogWriter(LogFiles.open(directory / "log", signer, segment_leaves=64))

    async def one(worker):
        number = 0
        while True:
            entry = f"{round}/{worker}/{number}"
            index = await writer.append([entry.encode()])
            sys.stdout.write(f"{index} {entry}\\n")
            sys.stdout.flush()
            number += 1

    await asyncio.gather(*map(one, range(8)))

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""

ROUNDS = 24


@pytest.mark.slow
def test_no_acknowledged_entry_is_lost_when_the_process_is_killed(log, signer):
    acknowledged: dict[int, bytes] = {}
    known = None
    for number in range(ROUNDS):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(log.parent), str(number)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        # a different moment each time
        lines = b"".join(child.stdout.readline() for _ in range(20 + 37 * number % 300))
        os.kill(child.pid, signal.SIGKILL)
        lines += child.stdout.read()
        child.stdout.close()
        child.wait()
        for line in lines.split(b"\n")[:-1]:
            index, _, entry = line.partition(b" ")
            acknowledged[int(index)] = entry
        verified = verify(log, signer.vkey, known)
        known = verified.checkpoint
        found = dict(LogReader(log).entries())
        assert len(found) == verified.size
        assert acknowledged.items() <= found.items()
    assert len(acknowledged) > ROUNDS
    LogFiles.open(log, signer).close()
    assert verify(log, signer.vkey, known).unfinished == 0


async def test_what_is_on_disk_is_not_released_by_a_log_that_has_failed(log, signer):
    disk = CountingDisk()
    writer = LogWriter(LogFiles.open(log, signer, disk=disk))
    decision = await writer.append([b"decision"])
    await writer.settled(decision)
    disk.fail_at = 0
    writer.post([b"lost"])
    with pytest.raises(LogUnavailable):
        await writer.append([b"also lost"])
    with pytest.raises(LogUnavailable):
        await writer.settled(decision)
    await writer.close()


async def test_a_poisoned_log_releases_nothing_from_that_moment_on(log, signer):
    files = LogFiles.open(log, signer)
    writer = LogWriter(files)
    decision = await writer.append([b"decision"])
    files.poison("its checkpoint cannot be kept")
    for refused in (writer.settled(decision), writer.append([b"x"]), writer.place([b"x"])):
        with pytest.raises(LogUnavailable, match="cannot be kept"):
            await refused
    await writer.close()


async def test_poison_reaches_what_lingers_and_who_waits_for_it(log, signer):
    files = LogFiles.open(log, signer)
    writer = LogWriter(files)
    placed = await writer.place([b"decision"])
    waiter = asyncio.ensure_future(writer.settled(placed))
    files.poison("its checkpoint cannot be kept")
    async with asyncio.timeout(5):
        with pytest.raises(LogUnavailable, match="cannot be kept"):
            await waiter
    await writer.close()
    assert verify(log, signer.vkey, None).size == 0


async def test_nobody_waits_for_an_entry_that_was_never_placed(log, signer):
    writer = LogWriter(LogFiles.open(log, signer))
    placed = await writer.place([b"0"])
    async with asyncio.timeout(5):
        with pytest.raises(LogUnavailable):
            await writer.settled(placed + 1)
    await writer.close()


async def test_places_are_kept_when_a_queue_is_written_in_several_commits(log, signer):
    disk = CountingDisk()
    writer = LogWriter(LogFiles.open(log, signer, disk=disk, segment_leaves=1024))
    before = disk.syncs
    places = [await writer.place([b"%d/%d" % (n, i) for i in range(300)]) for n in range(12)]
    gone = asyncio.ensure_future(writer.settled(places[3]))
    last = asyncio.ensure_future(writer.settled(places[-1] + 299))
    await asyncio.sleep(0)
    gone.cancel()
    await writer.settled(places[5])
    assert writer.size > places[5]
    await last
    assert writer.size == 3600
    assert disk.syncs - before > 1
    await writer.close()
    entries = dict(LogReader(log).entries())
    assert [entries[at] for at in places] == [b"%d/0" % n for n in range(12)]
