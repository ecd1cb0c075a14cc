"""Entries that are answered before they are on the medium: what they survive, and what never happens."""

import asyncio
import errno
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest

from chartgate.adapters.log_disk import CorruptLog, Disk
from chartgate.adapters.log_files import LogFiles, LogReader
from chartgate.adapters.log_verify import verify
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.signing import Signer, load_or_create_signer
from chartgate.errors import LogUnavailable
from chartgate.tlog import wal
from chartgate.tlog.checkpoint import peek

pytestmark = pytest.mark.system


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return load_or_create_signer(tmp_path / "log.key", "node.example/audit")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def read(log: Path) -> list[bytes]:
    return [entry for _, entry in LogReader(log).entries()]


def newest_wal(log: Path) -> Path:
    return max(log.glob("wal-*.log"))


def crash(log: Path, target: Path) -> Path:
    """The files as they are, without their lock's owner."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(log, target)
    return target


def test_what_is_written_is_signed_by_the_next_commit_and_seen_from_then_on(log, signer):
    with LogFiles.open(log, signer, segment_leaves=64) as files:
        files.append([b"0"])
        assert files.write([b"1", b"2"]) == 1
        assert files.write([b"3"]) == 3
        assert (files.size, files.written) == (1, 4)
        assert peek(files.checkpoint).size == 1, "nothing is signed that is not on the medium"
        assert read(log) == [b"0"]
        found = verify(log, signer.vkey, None)
        assert found.size == 1
        assert found.unfinished > 0
        assert files.append([b"4"]).first_index == 4
        assert read(log) == [b"0", b"1", b"2", b"3", b"4"]
        files.write([b"5"])
        files.seal()
        assert LogReader(log).head() == (6, files.checkpoint)
        files.write([b"6"])
    assert read(log) == [b"%d" % n for n in range(7)]
    assert verify(log, signer.vkey, None).unfinished == 0


def test_segments_end_with_a_commit_whoever_reaches_their_end(log, signer):
    expected: list[bytes] = []
    with LogFiles.open(log, signer, segment_leaves=4) as files:
        for number in range(23):
            entries = [b"%d.%d" % (number, i) for i in range(number % 3 + 1)]
            index = files.write(entries) if number % 4 else files.append(entries).first_index
            assert index == len(expected)
            expected += entries
            if number % 5 == 0:
                files.roll()
    assert read(log) == expected
    assert verify(log, signer.vkey, None).size == len(expected)
    with LogFiles.open(log, signer) as files:
        files.roll()
        assert files.append([b"last"]).first_index == len(expected)
    assert verify(log, signer.vkey, None).size == len(expected) + 1


def test_after_a_crash_what_was_written_is_there_and_signed_first(log, signer, tmp_path):
    with LogFiles.open(log, signer, segment_leaves=64) as files:
        files.append([b"0", b"1"])
        files.write([b"2"])
        files.write([b"3", b"4"])
        copy = crash(log, tmp_path / "copy")
    told: list[int] = []
    with LogFiles.open(copy, signer, on_recovered=lambda size, _: told.append(size)) as files:
        assert files.size == 5
        assert peek(files.checkpoint).size == 5
    assert not told
    assert read(copy) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("room", [False, True])
def test_a_crash_at_any_byte_of_a_run_keeps_every_whole_frame(log, signer, tmp_path, room):
    with LogFiles.open(log, signer, segment_leaves=64) as files:
        files.append([b"0", b"1"])
        start = newest_wal(log).stat().st_size
        files.write([b"2"])
        files.write([b"3", b"4"])
        files.append([b"5"])
        good = newest_wal(log).read_bytes()
        copy = crash(log, tmp_path / "copy")
    frames, _ = wal.scan(good)
    ends = [placed.end for placed in frames if placed.end >= start]
    sizes = [2, 3, 5, 6]
    for cut in range(start, len(good) + 1, 3):
        left = good[:cut] + bytes(700 if room else 0)
        for other in copy.iterdir():
            other.unlink()
        newest = copy / newest_wal(log).name
        newest.write_bytes(left)
        whole = sizes[max(i for i, end in enumerate(ends) if end <= cut)]
        with LogFiles.open(copy, signer, disk=UnsyncedDisk()) as files:
            assert files.size == whole
            assert files.append([b"on"]).first_index == whole
        assert read(copy) == [b"%d" % n for n in range(whole)] + [b"on"]
        assert verify(copy, signer.vkey, None).size == whole + 1


class UnsyncedDisk(Disk):
    """Nothing is waited for: for tests that only look at what is in the files."""

    def datasync(self, fd: int) -> None:
        pass

    def sync_directory(self, directory: Path) -> None:
        pass


def test_after_a_loss_of_power_the_log_is_no_shorter_than_what_was_synced(log, signer, tmp_path):
    rng = random.Random(4)
    with LogFiles.open(log, signer, segment_leaves=1024) as files:
        files.extend()
        files.append([b"kept %d" % n + b"x" * 300 for n in range(5)])
        synced = newest_wal(log).read_bytes()
        known = files.checkpoint
        files.write([b"a" * 700])
        files.write([b"b" * 40])
        files.append([b"c" * 900])
        written = newest_wal(log).read_bytes()
        name = newest_wal(log).name
    assert len(synced) == len(written), "room was made ahead"
    end = wal.scan(written)[0][-1].end
    for _ in range(40):
        copy = tmp_path / "copy"
        copy.mkdir()
        disk = bytearray(synced)
        for sector in range(0, len(disk), 512):  # each sector is the old or the new one
            if rng.random() < 0.7:
                disk[sector : sector + 512] = written[sector : sector + 512]
        (copy / name).write_bytes(disk)
        with LogFiles.open(copy, signer, disk=UnsyncedDisk()) as files:
            assert files.size >= 5
            files.append([b"goes on"])
        assert read(copy)[:5] == [b"kept %d" % n + b"x" * 300 for n in range(5)]
        assert verify(copy, signer.vkey, known).size >= 6
        assert (copy / name).stat().st_size <= end + 4096, "an orderly close cuts the room off"
        shutil.rmtree(copy)


def test_a_sector_lost_under_synced_entries_stops_start_up(log, signer, tmp_path):
    with LogFiles.open(log, signer, segment_leaves=1024) as files:
        files.extend()
        for number in range(6):
            files.append([b"%d" % number + b"x" * 700])
        copy = crash(log, tmp_path / "copy")
    data = bytearray(newest_wal(copy).read_bytes())
    data[1024:1536] = bytes(512)
    newest_wal(copy).write_bytes(data)
    with pytest.raises(CorruptLog):
        LogFiles.open(copy, signer)
    with pytest.raises(CorruptLog):
        verify(copy, signer.vkey, None)


# room


class SmallDisk(Disk):
    """There is no room for room."""

    def __init__(self, error: int) -> None:
        self.error = error

    def fill(self, fd: int, at: int, size: int) -> None:
        super().fill(fd, at, 1000)
        raise OSError(self.error, os.strerror(self.error))


async def test_a_disk_without_room_to_spare_is_written_as_long_as_it_takes(log, signer):
    writer = LogWriter(LogFiles.open(log, signer, disk=SmallDisk(errno.ENOSPC)))
    for number in range(5):
        assert await writer.append([b"%d" % number]) == number
    await writer.close()
    assert read(log) == [b"%d" % n for n in range(5)]
    assert verify(log, signer.vkey, None).unfinished == 0


async def test_a_disk_that_fails_to_make_room_stops_the_log(log, signer):
    writer = LogWriter(LogFiles.open(log, signer, disk=SmallDisk(errno.EIO)))

    async def until_it_fails() -> None:
        for number in range(1000):
            await writer.append([b"%d" % number])

    with pytest.raises(LogUnavailable):
        await until_it_fails()
    await writer.close()
    LogFiles.open(log, signer).close()
    assert verify(log, signer.vkey, None).size >= 1


async def test_room_is_made_ahead_and_cut_off_at_the_end(log, signer):
    writer = LogWriter(LogFiles.open(log, signer))
    for number in range(300):
        await writer.append([b"x" * 2000])
        frames, end = wal.scan(newest_wal(log).read_bytes())
        assert end == wal.Clean()
        assert len(frames) == number + 2
    assert newest_wal(log).stat().st_size > frames[-1].end + (1 << 16)
    assert verify(log, signer.vkey, None).unfinished == 0
    await writer.close()
    assert newest_wal(log).stat().st_size == frames[-1].end


# the writer


async def test_relaxed_entries_are_durable_within_milliseconds(log, signer):
    writer = LogWriter(LogFiles.open(log, signer))
    seen: list[tuple[int, tuple[bytes, ...]]] = []
    settled = asyncio.Event()

    def tell(index: int, entries: tuple[bytes, ...]) -> None:
        seen.append((index, entries))
        if index + len(entries) == 2:
            settled.set()

    writer.subscribe(tell)
    assert await writer.append([b"0"], durable=False) == 0
    assert await writer.append([b"1"], durable=False) == 1
    if not settled.is_set():  # a slow machine may have come so far
        assert peek(writer.checkpoint).size == writer.size < 2
    await asyncio.wait_for(settled.wait(), 5)
    assert writer.size == 2
    assert [entry for _, entries in seen for entry in entries] == [b"0", b"1"]
    assert read(log) == [b"0", b"1"]
    await writer.append([b"2"], durable=False)
    await writer.settled(2)
    assert writer.size == 3
    await writer.append([b"3"], durable=False)
    assert await writer.append([b"4"]) == 4
    assert writer.size == 5
    await writer.append([b"5"], durable=False)
    await writer.close()
    assert read(log) == [b"%d" % n for n in range(6)]


async def test_every_way_in_keeps_the_order_of_arrival(log, signer):
    rng = random.Random(4)
    writer = LogWriter(LogFiles.open(log, signer, segment_leaves=16))
    told: list[bytes] = []
    writer.subscribe(lambda _, entries: told.extend(entries))
    expected: list[bytes] = []
    waiting: list[asyncio.Future[int]] = []
    for number in range(400):
        entry = b"%d" % number
        way = rng.randrange(4)
        if way == 0:
            assert await writer.place([entry]) == number
        elif way == 1:
            writer.post([entry])
        else:
            waiting.append(asyncio.ensure_future(writer.append([entry], durable=way == 2)))
            await asyncio.sleep(0)
        expected.append(entry)
        if rng.random() < 0.05:
            await asyncio.gather(*waiting)
    await asyncio.gather(*waiting)
    await writer.close()
    assert read(log) == expected
    assert told == expected
    assert verify(log, signer.vkey, None).size == 400


class FailingDisk(Disk):
    fails = False

    def datasync(self, fd: int) -> None:
        if self.fails:
            raise OSError(5, "Input/output error")
        super().datasync(fd)


async def test_a_sync_that_fails_after_an_answer_stops_the_log(log, signer):
    disk = FailingDisk()
    writer = LogWriter(LogFiles.open(log, signer, disk=disk))
    await writer.append([b"0"], durable=False)
    disk.fails = True
    with pytest.raises(LogUnavailable):
        await writer.settled(0)
    with pytest.raises(LogUnavailable):
        await writer.append([b"1"], durable=False)
    await writer.close()


def _appending(log: Path, signer: Signer, turn: int, told: int) -> None:
    """In a child: append both ways without end, telling each answer."""

    async def main() -> None:
        writer = LogWriter(LogFiles.open(log, signer, segment_leaves=256))

        async def one(name: int) -> None:
            number = 0
            while True:
                entry = b"%d %d %d" % (turn, name, number)
                index = await writer.append([entry], durable=name % 2 == 0)
                os.write(told, b"%d %s\n" % (index, entry))
                number += 1

        await asyncio.gather(*(one(name) for name in range(6)))

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_no_answered_entry_is_lost_when_the_writer_is_killed_fifty_times(log, signer):
    rng = random.Random(4)
    LogFiles.open(log, signer, segment_leaves=256).close()
    answered: dict[int, bytes] = {}
    for turn in range(50):
        reading, telling = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reading)
                _appending(log, signer, turn, telling)
            except BaseException as exc:
                print(repr(exc), file=sys.stderr)
            finally:
                os._exit(1)
        os.close(telling)
        with os.fdopen(reading, "rb") as lines:
            wanted = rng.randrange(1, 60)
            for line in lines:
                index, _, entry = line.rstrip(b"\n").partition(b" ")
                answered[int(index)] = entry
                wanted -= 1
                if not wanted:
                    os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    LogFiles.open(log, signer).close()
    entries = read(log)
    assert len(answered) > 500
    assert all(entries[index] == entry for index, entry in answered.items())
    assert verify(log, signer.vkey, None).size == len(entries)
