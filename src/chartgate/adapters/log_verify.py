"""Verify a log directory with what is kept outside it: the public key and an older checkpoint.

Rules kept: everything is recomputed from the entries' bytes, nothing is taken from an index
unread; every byte of every file is under a check, and the first that fails is named (file,
offset, reason); the known checkpoint must be the root over exactly its first entries. What this
cannot see is the loss of a tail newer than every checkpoint held outside: that takes a witness.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from chartgate.adapters.log_disk import CHECKPOINT, LOCK, CorruptLog, Listing, wal_name
from chartgate.adapters.log_reader import SegmentFile
from chartgate.adapters.log_recovery import (
    Replayed,
    RootsAt,
    check_checkpoint,
    check_place,
    newest_wal,
    replay_wal,
    stored_checkpoint,
)
from chartgate.errors import Corrupt, LogUnavailable
from chartgate.tlog import segment as packed
from chartgate.tlog.checkpoint import Checkpoint, open_checkpoint
from chartgate.tlog.note import VerifierKey
from chartgate.tlog.tree import Frontier, leaf_hash, tree_root

_RETRIES = 5


@dataclass(frozen=True, slots=True)
class Verified:
    """A log whose every entry is the one that was signed."""

    size: int
    root: bytes
    checkpoint: str
    unfinished: int
    """Bytes of a write behind the last commit that did not finish (or is under way)."""


def verify(
    directory: Path,
    vkey: str,
    known_checkpoint: str | None,
    progress: Callable[[int], None] | None = None,
) -> Verified:
    """Recompute the whole log; ``progress`` is told the entries done now and then.

    A writer may be at work meanwhile: what is verified is a whole number of its commits.
    """
    directory = Path(directory)
    key = VerifierKey.parse(vkey)
    known = None if known_checkpoint is None else _open_known(known_checkpoint, key)
    try:
        return _verify(directory, key, known, progress or (lambda _: None))
    except OSError as exc:
        raise LogUnavailable(f"the audit log in {directory}: {exc.strerror}") from exc


def _verify(
    directory: Path, key: VerifierKey, known: Checkpoint | None, progress: Callable[[int], None]
) -> Verified:
    listing = Listing(directory)
    _check_bystanders(directory, listing)
    stored = stored_checkpoint(directory, key)
    watch = RootsAt(one.size for one in (stored, known) if one is not None)
    bases: dict[int, Frontier] = {0: Frontier()}
    for _ in range(_RETRIES):
        frontier = _segments(directory, listing, key, bases, watch, progress)
        try:
            replayed = _wals(directory, listing, key, bases, watch)
            break
        except FileNotFoundError:  # the writer rolled meanwhile: go on from where we are
            listing = Listing(directory)
    else:
        raise LogUnavailable("the audit log changes faster than it is read")
    frontier = replayed.frontier
    progress(frontier.size)
    if stored is not None:
        watch.check(stored, frontier.size, CHECKPOINT, "the checkpoint of the last close")
    if known is not None:
        watch.check(known, frontier.size, str(directory), "the known checkpoint")
    return Verified(frontier.size, frontier.root(), replayed.checkpoint, replayed.unfinished)


def _segments(
    directory: Path,
    listing: Listing,
    key: VerifierKey,
    bases: dict[int, Frontier],
    watch: RootsAt,
    progress: Callable[[int], None],
) -> Frontier:
    frontier = bases[max(bases)]
    for number in range(listing.check_segments()):
        with SegmentFile(directory / listing.segments[number]) as opened:
            leaves = opened.header.leaves
            if number == 0 or frontier.size == number * leaves:
                check_place(opened, number, leaves)
            if frontier.size > number * leaves:
                continue  # done before the writer rolled
            if frontier.size < number * leaves:
                raise CorruptLog(opened.name, 0, "the segment is not the one that its name says")
            for bundle in opened.segment.bundles:
                frontier = _bundle(opened, bundle, frontier, watch)
                progress(frontier.size)
            check_checkpoint(opened.segment.checkpoint, frontier, key, opened.name, None)
        bases[frontier.size] = frontier
    return frontier


def _bundle(
    opened: SegmentFile, bundle: packed.Bundle, frontier: Frontier, watch: RootsAt
) -> Frontier:
    leaves = [leaf_hash(entry) for entry in opened.bundle(bundle)]
    if tree_root(leaves) != bundle.root:
        last = bundle.first + bundle.count - 1
        raise CorruptLog(
            opened.name,
            bundle.start,
            f"entries {bundle.first} to {last} do not give their tree root",
        )
    watch(frontier, leaves)
    return frontier.extend(leaves)


def _wals(
    directory: Path,
    listing: Listing,
    key: VerifierKey,
    bases: dict[int, Frontier],
    watch: RootsAt,
) -> Replayed:
    newest = newest_wal(listing, directory)
    found: Replayed | None = None
    for first in sorted(listing.wals):
        name = wal_name(first)
        data = (directory / name).read_bytes()
        if first not in bases:
            if Listing(directory).segments != listing.segments:
                raise FileNotFoundError(name)
            raise CorruptLog(name, 0, f"no segment ends at entry {first}, where this file starts")
        found = replay_wal(name, data, bases[first], key, every_signature=True, watch=watch)
        if first == newest and found.frontier.size < max(bases):
            raise CorruptLog(name, found.end, f"the file ends before entry {max(bases)}")
        leaves = found.head.segment_leaves
        if any(size % leaves for size in bases):
            raise CorruptLog(name, 0, f"the file says {leaves} leaves a segment, the segments not")
    assert found is not None
    return found


def _check_bystanders(directory: Path, listing: Listing) -> None:
    """Files that hold no entries: the lock is empty, tails put aside are what their names say."""
    for name in listing.unknown:
        raise CorruptLog(name, None, "a file that does not belong in a log directory")
    lock = directory / LOCK
    if lock.exists() and lock.stat().st_size:
        raise CorruptLog(LOCK, 0, "the lock file is empty when it is ours")
    for name, (_, digest) in listing.torn.items():
        if sha256((directory / name).read_bytes()).hexdigest() != digest:
            raise CorruptLog(name, 0, "the tail put aside at recovery is not what its name says")


def _open_known(text: str, key: VerifierKey) -> Checkpoint:
    try:
        return open_checkpoint(text, key)
    except Corrupt as exc:
        raise Corrupt(f"the known checkpoint: {exc}") from exc
