"""The audit log on disk, written by one process: WAL, packed segments, signed checkpoints.

Rules kept:

- 45 CFR 164.312(b): what is acknowledged is on the medium. Encode, hash, grow the tree, sign, then
  *one* write of entries and checkpoint and one ``fdatasync``; only then is a commit returned.
- Any error of the disk poisons the log: this and every later append is refused, and a sync that
  failed is never tried again on that file.
- On opening, the tree is re-derived and compared with the last signed checkpoint before anything
  is signed. A torn tail above the last signed size is put aside and reported; anything else
  raises ``CorruptLog``.
- Entries that somebody does not wait for the medium with (``write``) are written without a signature
  and signed by the next ``append``, in its buffer: nothing is ever signed that is not on the medium
  when its signature is. After a crash they are there, and are signed before anything else.
- Room is made ahead of the log's end (``extend``), zeros on the medium: a write into it changes no
  length, and its sync has less to do. An orderly close cuts it off.
- One writer: ``flock`` on ``lock``.
- A recovered WAL is written anew unless the last close was orderly: after a failed sync the page
  cache may show bytes that the medium does not have.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from chartgate.adapters.log_disk import CHECKPOINT, CorruptLog, Disk, segment_name, wal_name
from chartgate.adapters.log_opening import recover, take_lock, torn_at
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.log_wal import WalFile
from chartgate.adapters.signing import Signer
from chartgate.errors import LogUnavailable, Refused
from chartgate.tlog import segment as packed
from chartgate.tlog import wal
from chartgate.tlog.checkpoint import checkpoint_signer, peek
from chartgate.tlog.tile import MAX_ENTRY
from chartgate.tlog.tree import EMPTY_ROOT, Frontier, leaf_hash

__all__ = ["Commit", "LogFiles", "LogReader", "check_entries"]

OnRecovered = Callable[[int, str], None]
"""(dropped bytes, their SHA-256 in hex): the caller records it as an event."""

MAX_APPEND = wal.MAX_PAYLOAD // 2
"""Half a frame: room for the checkpoint, and for a batch that holds such an append."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Entries that are on the medium: index of the first, and the signed tree that has them."""

    first_index: int
    size: int
    checkpoint_text: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A segment that is on the medium, while its entries still stand in the WAL too."""

    first: int
    border: int
    checkpoint: str
    cut: int
    """Offset in the WAL of the first frame that the segment does not hold."""


def check_entries(entries: Sequence[bytes]) -> None:
    """Raise ``Refused`` for what cannot be an append."""
    if not entries:
        raise Refused("an append without entries")
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise Refused(f"a log entry has at most {MAX_ENTRY} bytes, this one has {len(entry)}")
    size = sum(map(len, entries)) + 2 * len(entries)
    if size > MAX_APPEND:
        raise Refused(f"an append has at most {MAX_APPEND} bytes, this one has {size}")


class LogFiles:
    """A log directory held open for writing. Not for two threads at once."""

    def __init__(self, directory: Path, signer: Signer, disk: Disk, lock: int) -> None:
        """Use ``open``."""
        self._directory = directory
        self._signer = signer
        self._sign = checkpoint_signer(signer.key, signer.sign)
        self._disk = disk
        self._lock = lock
        self._wal: WalFile | None = None
        self._first = 0
        self._leaves = packed.SEGMENT_LEAVES
        self._frontier = Frontier()
        self._unsigned: list[bytes] = []
        self._checkpoint = ""
        self._broken: str | None = None
        self.sync_seconds = 0.0
        """How long the last write and sync took."""

    @classmethod
    def open(
        cls,
        directory: Path,
        signer: Signer,
        *,
        on_recovered: OnRecovered | None = None,
        segment_leaves: int = packed.SEGMENT_LEAVES,
        disk: Disk | None = None,
    ) -> Self:
        """Take the lock, recover, and be ready to append.

        ``segment_leaves`` counts for a new log only; an existing one keeps what it was made with.
        """
        packed.check_leaves(segment_leaves)
        directory = Path(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            lock = take_lock(directory)
            files = cls(directory, signer, disk or Disk(), lock)
            try:
                files._recover(segment_leaves, on_recovered)
            except BaseException:
                files._release()
                raise
        except OSError as exc:
            raise LogUnavailable(f"the audit log in {directory}: {exc.strerror}") from exc
        return files

    @property
    def size(self) -> int:
        """Entries on the medium."""
        return self._frontier.size

    @property
    def checkpoint(self) -> str:
        """The signed checkpoint over them."""
        return self._checkpoint

    @property
    def origin(self) -> str:
        """Origin line of its checkpoints."""
        return self._signer.name

    @property
    def is_poisoned(self) -> bool:
        """Whether every further append is refused."""
        return self._broken is not None

    @property
    def is_roll_due(self) -> bool:
        """Whether the next append, or ``roll``, packs a segment first: it takes longer."""
        return self.size - self._first >= self._leaves

    @property
    def is_roll_overdue(self) -> bool:
        """Whether the WAL holds a whole segment more than it should."""
        return self.size - self._first >= 2 * self._leaves

    @property
    def written(self) -> int:
        """Entries that survive the end of this process, signed or not."""
        return self._frontier.size + len(self._unsigned)

    def append(self, entries: Sequence[bytes], *, roll: bool = True) -> Commit:
        """Put the entries on the medium, in order and behind each other; all or none.

        Those of every ``write`` before go with them. A caller that packs and switches on its own says
        ``roll=False``.
        """
        self.check_usable()
        check_entries(entries)
        if roll:
            self.roll()
        first = self.written
        for run in self._runs(entries):
            self._commit(run)
        return Commit(first, self.size, self._checkpoint)

    def write(self, entries: Sequence[bytes]) -> int:
        """Write the entries and do not wait for the medium: the index of the first.

        They survive the end of this process. ``seal`` soon: until then no checkpoint covers them.
        """
        self.check_usable()
        check_entries(entries)
        first = self.written
        if first + len(entries) >= (first // self._leaves + 1) * self._leaves:
            return self.append(entries, roll=False).first_index  # a segment ends with a commit
        frame = wal.Entries(first, tuple(entries), self.size)
        with _Poisoning(self):
            self._file.write(bytes(frame))
            self._unsigned += (leaf_hash(entry) for entry in entries)
        return first

    def seal(self) -> Commit:
        """Sign what was written and is not signed yet, and put it on the medium."""
        self.check_usable()
        first = self.size
        if self._unsigned:
            self._commit(())
        return Commit(first, self.size, self._checkpoint)

    def _commit(self, entries: Sequence[bytes]) -> None:
        """One frame, one sync: the next frame shows that this one was synced."""
        leaves = [*self._unsigned, *(leaf_hash(entry) for entry in entries)]
        frontier = self._frontier.extend(leaves)
        text = self._sign(frontier.size, frontier.root())
        since = self.size if self._unsigned else None
        frame = wal.Commit(self.written, tuple(entries), text, since)
        with _Poisoning(self):
            began = time.perf_counter()
            self._file.write(bytes(frame))
            self._file.sync()
            self.sync_seconds = time.perf_counter() - began
            self._frontier, self._checkpoint, self._unsigned = frontier, text, []

    @property
    def is_extension_due(self) -> bool:
        """Whether ``extend`` has something to do."""
        return self._wal is not None and self._wal.is_extension_due

    def extend(self) -> None:
        """Make room ahead. Appends may go on meanwhile, in another thread; ``switch`` may not."""
        self.check_usable()
        with _Poisoning(self):
            self._file.extend()

    def roll(self) -> None:
        """Pack full segments out of the WAL, if there are any."""
        while self.is_roll_due:
            self.switch(self.pack())

    # A roll is (1) segment, (2) new WAL, (3) drop the old one; each step is on the medium before
    # the next, and recovery takes up after any of them.

    def pack(self) -> Packed:
        """Step (1). Appends with ``roll=False`` may go on meanwhile, in another thread."""
        self.check_usable()
        with _Poisoning(self):
            first, border = self._first, self._first + self._leaves
            data = (self._directory / wal_name(first)).read_bytes()
            frames, _ = wal.scan(memoryview(data)[: self._file.end])
            entries: list[bytes] = []
            checkpoint, cut = "", 0
            for placed in frames:
                frame = placed.frame
                if isinstance(frame, wal.Head) or frame.first + len(frame.entries) > border:
                    continue
                entries += frame.entries
                if isinstance(frame, wal.Commit):
                    checkpoint, cut = frame.checkpoint, placed.end
            if len(entries) != self._leaves or peek(checkpoint).size != border:
                raise CorruptLog(wal_name(first), cut, "the file is not what was written to it")
            path = self._directory / segment_name(first // self._leaves)
            self._disk.replace(path, packed.pack(first, entries, checkpoint))
        return Packed(first, border, checkpoint, cut)

    def switch(self, done: Packed) -> None:
        """Steps (2) and (3): the WAL goes on behind the segment. Never beside an append."""
        self.check_usable()
        with _Poisoning(self):
            old = self._directory / wal_name(done.first)
            with old.open("rb") as file:
                file.seek(done.cut)
                rest = file.read(self._file.end - done.cut)
            head = bytes(wal.Head(done.border, self._leaves, done.checkpoint))
            self._disk.replace(self._directory / wal_name(done.border), head + rest)
            self._open_wal(done.border)
            old.unlink()
            self._disk.sync_directory(self._directory)

    def close(self) -> None:
        """Leave the newest checkpoint beside the log and let go of the lock."""
        if self._lock < 0:
            return
        try:
            if self._broken is None:
                self.seal()
                self._file.cut()
                self._disk.replace(self._directory / CHECKPOINT, self._checkpoint.encode())
        except OSError as exc:
            raise LogUnavailable(f"closing the audit log: {exc.strerror}") from exc
        finally:
            self._broken = self._broken or "it is closed"
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def poison(self, reason: str) -> None:
        """Refuse every further append, for this reason."""
        self._broken = self._broken or reason

    def check_usable(self) -> None:
        """Raise ``LogUnavailable`` if the log is poisoned or closed."""
        if self._broken is not None:
            raise LogUnavailable(f"the audit log takes no entries: {self._broken}")

    def _runs(self, entries: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """Cut where a segment ends: a frame never reaches over that border."""
        start = 0
        while start < len(entries):
            room = self._leaves - self.written % self._leaves  # it grows as runs are committed
            yield entries[start : start + room]
            start += room

    def _open_wal(self, first: int) -> None:
        opened = WalFile(self._disk, self._directory / wal_name(first))
        if self._wal is not None:
            self._wal.close()
        self._wal, self._first = opened, first

    @property
    def _file(self) -> WalFile:
        assert self._wal is not None
        return self._wal

    def _recover(self, segment_leaves: int, on_recovered: OnRecovered | None) -> None:
        found = recover(self._directory, self._signer.key, self._disk)
        if found is None:
            self._create(segment_leaves)
            return
        self._leaves, self._frontier, self._checkpoint = (
            found.leaves,
            found.frontier,
            found.checkpoint,
        )
        self._unsigned = list(found.unsigned)
        self._open_wal(found.first)
        found.remove_old(self._directory, self._disk)
        self.seal()
        if on_recovered is not None:
            for dropped in torn_at(self._directory, self.size):
                on_recovered(*dropped)

    def _create(self, leaves: int) -> None:
        self._checkpoint = self._sign(0, EMPTY_ROOT)
        self._leaves = leaves
        head = bytes(wal.Head(0, leaves, self._checkpoint))
        self._disk.replace(self._directory / wal_name(0), head)
        self._disk.sync_directory(self._directory.parent)
        self._open_wal(0)

    def _release(self) -> None:
        if self._wal is not None:
            self._wal.close()
        if self._lock >= 0:
            with suppress(OSError):
                os.close(self._lock)
        self._lock = -1


class _Poisoning:
    """Whatever goes wrong inside leaves the log refusing; errors of the disk become ours."""

    def __init__(self, files: LogFiles) -> None:
        self._files = files

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        self._files.poison(f"writing failed ({reason})")
        if isinstance(error, OSError):
            raise LogUnavailable(f"the audit log could not be written: {reason}") from error
