"""The log on a real file system: every flipped byte is named, every torn tail judged, disks fail."""

import errno
import os
import shutil
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from chartgate.adapters.log_disk import CorruptLog, Disk
from chartgate.adapters.log_files import LogFiles, LogReader
from chartgate.adapters.log_verify import verify
from chartgate.adapters.signing import Signer, load_or_create_signer
from chartgate.errors import ChartgateError, Corrupt, LogUnavailable, Misconfigured, Refused
from chartgate.tlog import wal
from chartgate.tlog.checkpoint import open_checkpoint
from chartgate.tlog.tree import leaf_hash, tree_root

pytestmark = pytest.mark.system

NAME = "node.example/audit"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return load_or_create_signer(tmp_path / "log.key", NAME)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def fill(log: Path, signer: Signer, *batches: int, leaves: int = 4) -> list[bytes]:
    """A log closed in order; the entries that are in it."""
    entries: list[bytes] = []
    with LogFiles.open(log, signer, segment_leaves=leaves) as files:
        for batch in batches:
            new = [b"entry %d" % (len(entries) + i) for i in range(batch)]
            assert files.append(new).first_index == len(entries)
            entries += new
    return entries


def crashed(
    log: Path, signer: Signer, target: Path, *batches: int, leaves: int = 64
) -> list[bytes]:
    """As ``fill``, but the files are those of a process that died without closing."""
    entries: list[bytes] = []
    with LogFiles.open(log, signer, segment_leaves=leaves) as files:
        for batch in batches:
            new = [b"entry %d" % (len(entries) + i) for i in range(batch)]
            files.append(new)
            entries += new
        shutil.copytree(log, target)
    return entries


def newest_wal(log: Path) -> Path:
    return max(log.glob("wal-*.log"))


def read(log: Path) -> list[bytes]:
    return [entry for _, entry in LogReader(log).entries()]


# appending and reading


def test_what_is_appended_is_read_back_across_segments_and_restarts(log, signer):
    entries = fill(log, signer, 1, 2, 9, 1, 3)
    assert read(log) == entries
    more = fill_more(log, signer, 7)
    assert read(log) == entries + more
    assert list(LogReader(log).entries(3, 10)) == list(enumerate(entries))[3:10]
    assert list(LogReader(log).entries(22, 99)) == [(22, more[-1])]
    verified = verify(log, signer.vkey, None)
    assert verified.size == 23
    assert verified.root == tree_root([leaf_hash(e) for e in entries + more])
    assert verified.unfinished == 0
    assert open_checkpoint(verified.checkpoint, signer.key).root == verified.root


def fill_more(log: Path, signer: Signer, count: int) -> list[bytes]:
    with LogFiles.open(log, signer) as files:
        new = [b"more %d" % i for i in range(count)]
        files.append(new)
    return new


def test_segments_of_several_bundles_are_read_from_any_index(log, signer):
    entries = fill(log, signer, 700, 900, 1, leaves=512)
    assert len(list(log.glob("segment-*.seg"))) == 3
    assert read(log) == entries
    for start in (0, 255, 256, 511, 512, 1023, 1300, 1536, 1600, 1601):
        found = list(LogReader(log).entries(start))
        assert found == list(enumerate(entries))[start:]
    assert verify(log, signer.vkey, None).size == 1601


def test_a_reader_follows_a_writer_through_rolls(log, signer):
    with LogFiles.open(log, signer, segment_leaves=4) as files:
        reader = LogReader(log)
        assert reader.size == 0
        for size in range(1, 30):
            files.append([b"%d" % size])
            assert reader.size == size
            assert reader.checkpoint == files.checkpoint
            assert [e for _, e in reader.entries(size - 1)] == [b"%d" % size]
            assert verify(log, signer.vkey, files.checkpoint).size == size


def test_a_reading_begun_before_a_roll_ends_as_it_began(log, signer):
    with LogFiles.open(log, signer, segment_leaves=4) as files:
        files.append([b"0", b"1", b"2"])
        reading = LogReader(log).entries()
        assert next(reading) == (0, b"0")
        files.append([b"3", b"4", b"5"])
        files.roll()
        assert list(reading) == [(1, b"1"), (2, b"2")]


def test_entries_have_a_size_limit_and_an_append_has_entries(log, signer):
    with LogFiles.open(log, signer) as files:
        assert files.append([b"", bytes(65_535)]).size == 2
        with pytest.raises(Refused, match="at most 65535 bytes"):
            files.append([b"fine", bytes(65_536)])
        with pytest.raises(Refused, match="without entries"):
            files.append([])
        assert files.append([b"still writable"]).first_index == 2


def test_the_directory_is_private_and_the_writer_is_one(log, signer):
    with LogFiles.open(log, signer):
        assert stat.S_IMODE(log.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in log.iterdir())
        with pytest.raises(LogUnavailable, match="another process writes the audit log"):
            LogFiles.open(log, signer)
    LogFiles.open(log, signer).close()


def test_no_log_is_not_an_empty_log(log, signer):
    log.mkdir()
    with pytest.raises(LogUnavailable, match="no audit log"):
        LogReader(log).size  # noqa: B018
    with pytest.raises(CorruptLog, match="write-ahead log is missing"):
        verify(log, signer.vkey, None)


def test_another_key_does_not_continue_a_log(log, signer, tmp_path):
    fill(log, signer, 3)
    other = load_or_create_signer(tmp_path / "other.key", NAME)
    with pytest.raises(Corrupt, match="no signature by a known key"):
        LogFiles.open(log, other)
    with pytest.raises(Corrupt, match="no signature by a known key"):
        verify(log, other.vkey, None)


# tampering


class UnsyncedDisk(Disk):
    """Nothing is waited for: for tests that only look at what is in the files."""

    def datasync(self, fd: int) -> None:
        pass

    def sync_directory(self, directory: Path) -> None:
        pass


def files_of(log: Path) -> list[Path]:
    return sorted(file for file in log.iterdir() if file.stat().st_size)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_of_every_file_is_named(log, signer, tmp_path, mask):
    entries = crashed(log, signer, tmp_path / "copy", 3, 2, 3, leaves=4)
    copy = tmp_path / "copy"
    newest_wal(copy).write_bytes(newest_wal(copy).read_bytes() + wal.MAGIC)
    LogFiles.open(copy, signer).close()  # leaves a torn tail aside and a checkpoint
    assert verify(copy, signer.vkey, None).size == len(entries)
    kinds = {file.name.split("-")[0] for file in files_of(copy)}
    assert kinds == {"segment", "wal", "checkpoint", "torn"}
    for file in files_of(copy):
        good = file.read_bytes()
        for at in range(len(good)):
            bad = bytearray(good)
            bad[at] ^= mask
            file.write_bytes(bad)
            with pytest.raises(CorruptLog) as caught:
                verify(copy, signer.vkey, None)
            assert caught.value.file == file.name, (file.name, at)
        file.write_bytes(good)
    verify(copy, signer.vkey, None)


def test_every_flipped_byte_of_the_wal_stops_start_up_and_readers(log, signer, tmp_path):
    crashed(log, signer, tmp_path / "copy", 2, 1, 2)
    file = newest_wal(tmp_path / "copy")
    good = file.read_bytes()
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        file.write_bytes(bad)
        with pytest.raises(CorruptLog) as caught:
            LogFiles.open(file.parent, signer)
        assert caught.value.file == file.name
        with pytest.raises(ChartgateError):
            read(file.parent)
        assert file.read_bytes() == bad, "nothing is changed in a log that is not understood"


def test_a_wal_cut_at_any_byte_loses_only_what_was_torn(log, signer, tmp_path):
    entries = crashed(log, signer, tmp_path / "crash", 2, 1, 2)
    good = newest_wal(tmp_path / "crash").read_bytes()
    frames, _ = wal.scan(good)
    ends = [placed.end for placed in frames]
    sizes = [0, 2, 3, 5]
    for cut in range(len(good) + 1):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "crash", copy)
        newest_wal(copy).write_bytes(good[:cut])
        reports: list[tuple[int, str]] = []

        def opened(copy: Path = copy, reports: list = reports) -> LogFiles:
            return LogFiles.open(
                copy,
                signer,
                on_recovered=lambda *told: reports.append(told),
                disk=UnsyncedDisk(),
            )

        if cut < ends[0]:  # the head appears whole or not at all: this is no torn write
            with pytest.raises(CorruptLog):
                opened()
        else:
            whole = max(i for i, end in enumerate(ends) if end <= cut)
            torn = good[ends[whole] : cut].rstrip(b"\0")  # zeros may be room that was made ahead
            expected = [(len(torn), sha256(torn).hexdigest())] if torn else []
            opened().close()
            assert reports == expected
            opened().close()
            assert reports == expected * 2, "told again until it is recorded"
            with opened() as files:
                assert files.size == sizes[whole]
                files.append([b"recovered"])
            reports.clear()
            opened().close()
            assert not reports
            assert read(copy) == [*entries[: sizes[whole]], b"recovered"]
            kept = [file.read_bytes() for file in copy.glob("torn-*")]
            assert kept == ([torn] if torn else [])
            verify(copy, signer.vkey, None)
        shutil.rmtree(copy)


def test_a_wal_cut_below_the_last_known_size_stops_start_up(log, signer):
    fill(log, signer, 2, 1, 2, leaves=64)
    file = newest_wal(log)
    good = file.read_bytes()
    known = (log / "checkpoint").read_text()
    for cut in range(len(good)):
        file.write_bytes(good[:cut])
        with pytest.raises(CorruptLog):
            LogFiles.open(log, signer)
    (log / "checkpoint").unlink()  # whoever cuts the tail removes this too: hence the known one
    frames, _ = wal.scan(good)
    file.write_bytes(good[: frames[-2].end])
    assert verify(log, signer.vkey, None).size == 3
    with pytest.raises(CorruptLog, match="its end was cut off"):
        verify(log, signer.vkey, known)


def test_zeros_after_the_last_commit_are_its_end_and_other_bytes_are_not(log, signer, tmp_path):
    crashed(log, signer, tmp_path / "copy", 2, 1)
    file = newest_wal(tmp_path / "copy")
    good = file.read_bytes()
    for tail in (b"\1", b"\0" * 5 + b"\1", b"\1" + b"\0" * 5000):
        file.write_bytes(good + tail)
        with pytest.raises(CorruptLog, match="no frame begins here"):
            LogFiles.open(file.parent, signer)
    file.write_bytes(good + b"\0" * 5000)
    assert read(file.parent) == [b"entry 0", b"entry 1", b"entry 2"]
    assert verify(file.parent, signer.vkey, None).unfinished == 0
    told: list[int] = []
    LogFiles.open(file.parent, signer, on_recovered=lambda size, _: told.append(size)).close()
    assert not told
    assert newest_wal(tmp_path / "copy").read_bytes() == good


def test_frames_reordered_repeated_or_left_out_are_found(log, signer):
    fill(log, signer, 1, 1, 1, 1, leaves=64)
    file = newest_wal(log)
    good = file.read_bytes()
    frames, _ = wal.scan(good)
    head, *commits = [good[placed.offset : placed.end] for placed in frames]
    a, b, c, d = commits
    for order in ([a, c, b, d], [a, b, b, c, d], [a, c, d], [b, a, c, d], [head, a, b, c, d], []):
        file.write_bytes(b"".join([head, *order]))
        with pytest.raises(CorruptLog):
            verify(log, signer.vkey, None)
        with pytest.raises(CorruptLog):
            LogFiles.open(log, signer)


def test_segments_that_are_missing_swapped_or_strange_are_found(log, signer):
    fill(log, signer, 14, 1)
    second, third = log / "segment-00000001.seg", log / "segment-00000002.seg"
    spare = log.parent / "spare"
    for change, back in (
        (lambda: second.rename(spare), lambda: spare.rename(second)),
        (lambda: third.rename(spare), lambda: spare.rename(third)),
        (lambda: _swap(second, third, spare), lambda: _swap(second, third, spare)),
        (lambda: shutil.copy(second, log / "segment-00000003.seg"),
         (log / "segment-00000003.seg").unlink),
    ):  # fmt: skip
        change()
        with pytest.raises(CorruptLog):
            verify(log, signer.vkey, None)
        with pytest.raises(CorruptLog):
            LogFiles.open(log, signer)
        back()
    (log / "notes.txt").write_text("mine")
    with pytest.raises(CorruptLog, match="does not belong"):
        verify(log, signer.vkey, None)


def _swap(one: Path, other: Path, spare: Path) -> None:
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


def test_a_history_signed_anew_by_the_key_holder_is_found_by_the_known_checkpoint(
    log, signer, tmp_path
):
    fill(log, signer, 5)
    known = (log / "checkpoint").read_text()
    forged = tmp_path / "forged"
    with LogFiles.open(forged, signer, segment_leaves=4) as files:
        files.append(
            [b"entry 0", b"entry 1", b"not entry 2", *(b"entry %d" % i for i in (3, 4, 5))]
        )
    assert verify(forged, signer.vkey, None).size == 6
    with pytest.raises(CorruptLog, match="not those that the known checkpoint covers"):
        verify(forged, signer.vkey, known)
    with pytest.raises(Corrupt, match="the known checkpoint"):
        verify(log, signer.vkey, known.replace("\n5\n", "\n6\n"))


# disks that fail


class FailingDisk(Disk):
    """A disk with so many bytes of room, and syncs that fail from the n-th on."""

    def __init__(self, *, room: int = 1 << 40, syncs: int = 1 << 40) -> None:
        self.room = room
        self.syncs = syncs

    def write(self, fd: int, data: bytes) -> None:
        super().write(fd, data[: self.room])
        if len(data) > self.room:
            self.room = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(data)

    def datasync(self, fd: int) -> None:
        if self.syncs <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.syncs -= 1
        super().datasync(fd)


def test_a_full_disk_refuses_this_append_and_all_later_ones(log, signer):
    entries = fill(log, signer, 3, leaves=64)
    disk = FailingDisk(room=100)
    files = LogFiles.open(log, signer, disk=disk)
    with pytest.raises(LogUnavailable, match="No space left"):
        files.append([b"too much" * 40])
    disk.room = 1 << 30
    with pytest.raises(LogUnavailable, match="takes no entries"):
        files.append([b"room again"])
    files.close()
    told: list[int] = []
    with LogFiles.open(log, signer, on_recovered=lambda size, _: told.append(size)) as files:
        assert files.size == 3
        files.append([b"after"])
    assert told == [100]
    assert read(log) == [*entries, b"after"]
    verify(log, signer.vkey, None)


def test_a_failed_sync_is_never_tried_again(log, signer):
    fill(log, signer, 3, leaves=64)
    disk = FailingDisk(syncs=1)
    files = LogFiles.open(log, signer, disk=disk)
    files.append([b"good"])
    with pytest.raises(LogUnavailable, match="Input/output error"):
        files.append([b"unknown fate"])
    disk.syncs = 100
    with pytest.raises(LogUnavailable, match="takes no entries"):
        files.append([b"no"])
    assert disk.syncs == 100
    assert files.size == 4
    files.close()
    before = newest_wal(log).stat().st_ino
    LogFiles.open(log, signer).close()
    assert newest_wal(log).stat().st_ino != before, "the page cache is not trusted: written anew"
    assert verify(log, signer.vkey, None).size in (4, 5)


@pytest.mark.parametrize("syncs", range(6))
@pytest.mark.parametrize("room", [1 << 30, 150, 700])
def test_a_disk_that_fails_anywhere_in_a_roll_loses_nothing(log, signer, syncs, room):
    entries = fill(log, signer, 3, 3)
    files = LogFiles.open(log, signer, disk=FailingDisk(syncs=syncs, room=room))
    try:
        files.append([b"next"])
        entries.append(b"next")
    except LogUnavailable:
        assert files.is_poisoned
    with suppress(LogUnavailable):
        files.close()
    assert verify(log, signer.vkey, None).size >= len(entries)
    assert read(log)[: len(entries)] == entries
    with LogFiles.open(log, signer) as files:
        files.append([b"last"])
    assert verify(log, signer.vkey, None).size == len(read(log))
    assert set(entries) <= set(read(log))


class DyingDisk(Disk):
    """The machine stops before the n-th file operation: nothing after it happens."""

    def __init__(self, operations: int) -> None:
        self.operations = operations

    def replace(self, path: Path, data: bytes) -> None:
        self._step()
        super().replace(path, data)

    def sync_directory(self, directory: Path) -> None:
        self._step()
        super().sync_directory(directory)

    def _step(self) -> None:
        if self.operations == 0:
            raise SystemExit("power lost")
        self.operations -= 1


@pytest.mark.parametrize("operations", range(7))
def test_a_roll_interrupted_at_any_step_is_taken_up_again(log, signer, operations):
    entries = fill(log, signer, 3, 3)
    files = LogFiles.open(log, signer, disk=DyingDisk(operations + 1))
    try:
        files.append([b"next"])
        entries.append(b"next")
        files.close()
    except SystemExit:
        files.poison("power lost")
        files.close()
    assert read(log) == entries
    assert verify(log, signer.vkey, None).size == len(entries)
    with LogFiles.open(log, signer) as files:
        assert files.append([b"last"]).first_index == len(entries)
    assert read(log) == [*entries, b"last"]
    assert verify(log, signer.vkey, None).size == len(entries) + 1
    assert len(list(log.glob("wal-*"))) == 1


# the key


def test_the_key_is_made_once_and_private(tmp_path):
    path = tmp_path / "log.key"
    made = load_or_create_signer(path, NAME)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "log.key.pub").read_text() == made.vkey + "\n"
    assert load_or_create_signer(path, NAME).vkey == made.vkey
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.key", "log.key.pub"]
    secret = path.read_text().strip().split("+", 4)[4]
    assert secret not in repr(made)
    with pytest.raises(Misconfigured, match="is called"):
        load_or_create_signer(path, "another.example")
    path.chmod(0o640)
    with pytest.raises(Misconfigured, match="read by others"):
        load_or_create_signer(path, NAME)
    path.chmod(0o600)
    path.write_text("")
    with pytest.raises(Misconfigured, match="not an Ed25519 note key"):
        load_or_create_signer(path, NAME)
