"""Opening a log that exists: what its files say, compared with what was signed, and made whole.

Rules kept: the tree is re-derived and compared with the last signed checkpoint before anything is
signed; a torn tail above the last signed size is put aside, never dropped; anything else that does not
fit raises ``CorruptLog``; a WAL is written anew unless its last close was orderly. One writer: ``flock``.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chartgate.adapters.log_disk import (
    CHECKPOINT,
    LOCK,
    CorruptLog,
    Disk,
    Listing,
    segment_name,
    torn_name,
    wal_name,
)
from chartgate.adapters.log_recovery import (
    Replayed,
    RootsAt,
    base_of_segments,
    newest_wal,
    replay_wal,
    stored_checkpoint,
)
from chartgate.errors import LogUnavailable
from chartgate.tlog import wal
from chartgate.tlog.note import VerifierKey
from chartgate.tlog.tree import Frontier

_HEAD_ROOM = 1 << 16
"""More than any head frame."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A log as its files have it: the WAL at ``first`` is whole, and goes on behind ``unsigned``."""

    leaves: int
    first: int
    frontier: Frontier
    checkpoint: str
    unsigned: tuple[bytes, ...]
    old: tuple[str, ...]
    """Files of WALs that are in segments already."""

    def remove_old(self, directory: Path, disk: Disk) -> None:
        """A crash between the last two steps of a roll left them."""
        for name in self.old:
            (directory / name).unlink()
        disk.sync_directory(directory)


def take_lock(directory: Path) -> int:
    """The file that says who writes; raises ``LogUnavailable`` where somebody else does."""
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise LogUnavailable(
            f"another process writes the audit log in {directory} (it holds {LOCK!r})"
        ) from exc
    return lock


def recover(directory: Path, key: VerifierKey, disk: Disk) -> Recovered | None:
    """What is there; None for an empty folder."""
    listing = Listing(directory)
    for name in listing.temporary:  # never renamed, so never part of the log
        (directory / name).unlink()
    stored = stored_checkpoint(directory, key)
    if not (listing.wals or listing.segments or listing.has_checkpoint):
        return None
    count, first = listing.check_segments(), newest_wal(listing, directory)
    data = (directory / wal_name(first)).read_bytes()
    leaves = _leaves_of(data, wal_name(first))
    # a crash between (1) and (2) of a roll leaves the last segment and the WAL it came from
    if first == (count - 1) * leaves:
        count -= 1
    if first != count * leaves:
        raise CorruptLog(wal_name(first), None, f"{count} segments do not end where it starts")
    base = base_of_segments(directory, range(count), leaves, key)
    watch = RootsAt([stored.size] if stored else [])
    if stored and stored.size == base.size:
        watch.roots[base.size] = base.root()
    found = replay_wal(wal_name(first), data, base, key, every_signature=False, watch=watch)
    if stored and stored.size >= base.size:  # a smaller one was checked when it was rolled
        watch.check(stored, found.frontier.size, CHECKPOINT, "the checkpoint of the last close")
    if count in listing.segments and found.frontier.size < first + leaves:
        raise CorruptLog(segment_name(count), None, "a segment of more than the log holds")
    is_clean = stored is not None and stored.size == found.frontier.size
    _make_whole(directory, disk, first, data, found, is_clean=is_clean)
    old = tuple(name for at, name in listing.wals.items() if at != first)
    return Recovered(leaves, first, found.frontier, found.checkpoint, tuple(found.unsigned), old)


def torn_at(directory: Path, size: int) -> Iterator[tuple[int, str]]:
    """Bytes and SHA-256 of the tails dropped at this size: told again, if we died before it was
    recorded."""
    for name, (at, digest) in Listing(directory).torn.items():
        if at == size:
            yield (directory / name).stat().st_size, digest


def _make_whole(
    directory: Path, disk: Disk, first: int, data: bytes, found: Replayed, *, is_clean: bool
) -> None:
    """Put a torn tail aside, write the WAL anew unless its last close was orderly."""
    if found.torn:
        written = found.frontier.size + len(found.unsigned)
        digest = hashlib.sha256(found.torn).hexdigest()
        disk.replace(directory / torn_name(written, digest), found.torn)
    if found.torn or not is_clean or found.end != len(data):
        disk.replace(directory / wal_name(first), data[: found.end])


def _leaves_of(data: bytes, name: str) -> int:
    frames, _ = wal.scan(data[:_HEAD_ROOM])
    if not frames or not isinstance(frames[0].frame, wal.Head):
        raise CorruptLog(name, 0, "the file does not begin with a head frame")
    return frames[0].frame.segment_leaves
