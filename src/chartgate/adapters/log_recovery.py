"""What a log directory holds, re-derived from its files: the first half of opening and verifying.

Rules kept (audit reference §2; C2SP tlog-checkpoint: a log never signs two inconsistent trees):
every commit in the WAL must follow the one before and its checkpoint must be the root over what
is there; the last checkpoint must be signed by the log's key; only a torn tail above the last
signed size may be dropped. Whatever else is found raises ``CorruptLog`` with file and offset.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from chartgate.adapters.log_disk import CHECKPOINT, CorruptLog, Listing, segment_name, wal_name
from chartgate.adapters.log_reader import SegmentFile
from chartgate.errors import Corrupt
from chartgate.tlog import wal
from chartgate.tlog.checkpoint import Checkpoint, open_checkpoint, peek
from chartgate.tlog.note import VerifierKey
from chartgate.tlog.tree import Frontier, leaf_hash

Watch = Callable[[Frontier, list[bytes]], None]
"""Told of each run of leaf hashes before it is appended to the tree."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A WAL file that holds together: where it starts, what the tree is at its end.

    ``frontier`` and ``checkpoint`` are of what is signed; ``unsigned`` leaves follow, written whole
    for somebody who was told so. ``end`` is behind them.
    """

    head: wal.Head
    frontier: Frontier
    checkpoint: str
    signed_end: int
    end: int
    torn: bytes
    unsigned: tuple[bytes, ...] = ()

    @property
    def unfinished(self) -> int:
        """Bytes behind the last commit."""
        return self.end - self.signed_end + len(self.torn)


def check_checkpoint(
    text: str, frontier: Frontier, key: VerifierKey | None, file: str, offset: int | None
) -> Checkpoint:
    """Raise unless the text is of this tree and, if a key is given, signed by it."""
    try:
        said = peek(text) if key is None else open_checkpoint(text, key)
    except Corrupt as exc:
        raise CorruptLog(file, offset, f"the checkpoint: {exc}") from exc
    if said.size != frontier.size:
        raise CorruptLog(
            file, offset, f"the checkpoint is of size {said.size}, not {frontier.size}"
        )
    if said.root != frontier.root():
        raise CorruptLog(
            file, offset, f"the entries before {said.size} do not give the signed root"
        )
    return said


def replay_wal(
    name: str,
    data: bytes,
    base: Frontier,
    key: VerifierKey,
    *,
    every_signature: bool,
    watch: Watch | None = None,
) -> Replayed:
    """Re-derive the tree at the end of a WAL file that continues ``base``."""
    frames, end = wal.scan(data)
    if isinstance(end, wal.Damaged):
        raise CorruptLog(name, end.offset, end.reason)
    if not frames or not isinstance(head := frames[0].frame, wal.Head):
        raise CorruptLog(name, 0, "the file does not begin with a head frame")
    if head.first != base.size or wal_name(head.first) != name:
        raise CorruptLog(name, 0, f"the file starts at entry {head.first}, not {base.size}")
    check_checkpoint(head.checkpoint, base, key, name, 0)
    frontier, checkpoint, signed_end = base, head.checkpoint, frames[0].end
    unsigned: list[bytes] = []
    last = next((p for p in reversed(frames) if isinstance(p.frame, wal.Commit)), None)
    for placed in frames[1:]:
        frame = placed.frame
        expected = frontier.size + len(unsigned)
        if isinstance(frame, wal.Head) or not wal.follows(frame, frontier.size, expected):
            raise CorruptLog(
                name, placed.offset, f"a frame out of order: entry {expected} was expected"
            )
        leaves = [leaf_hash(entry) for entry in frame.entries]
        if isinstance(frame, wal.Entries):
            unsigned += leaves
            continue
        leaves, unsigned = [*unsigned, *leaves], []
        if watch is not None:
            watch(frontier, leaves)
        frontier, checkpoint, signed_end = frontier.extend(leaves), frame.checkpoint, placed.end
        signed_by = key if every_signature or placed is last else None
        check_checkpoint(checkpoint, frontier, signed_by, name, placed.offset)
    after = frames[-1].end
    torn = b"" if isinstance(end, wal.Clean) else data[after:].rstrip(b"\0")
    return Replayed(head, frontier, checkpoint, signed_end, after, torn, tuple(unsigned))


def base_of_segments(
    directory: Path, numbers: Iterable[int], leaves: int, key: VerifierKey
) -> Frontier:
    """The tree over these segments by their bundle roots; the entries are not hashed again."""
    frontier, checkpoint, name = Frontier(), "", ""
    for number in numbers:
        name = segment_name(number)
        with SegmentFile(directory / name) as opened:
            segment = opened.segment
        check_place(opened, number, leaves)
        frontier = frontier.append_subtree(segment.root, leaves)
        checkpoint = segment.checkpoint
        check_checkpoint(checkpoint, frontier, None, name, None)
    if checkpoint:
        check_checkpoint(checkpoint, frontier, key, name, None)
    return frontier


def check_place(opened: SegmentFile, number: int, leaves: int) -> None:
    """Raise unless the segment is the one its name says."""
    if opened.header.leaves != leaves or opened.header.first != number * leaves:
        raise CorruptLog(opened.name, 0, "the segment is not the one that its name says")


def stored_checkpoint(directory: Path, key: VerifierKey) -> Checkpoint | None:
    """The checkpoint written at the last orderly close, if there is one."""
    try:
        data = (directory / CHECKPOINT).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return open_checkpoint(data.decode(), key)
    except (Corrupt, UnicodeDecodeError) as exc:
        raise CorruptLog(CHECKPOINT, 0, f"the checkpoint: {exc}") from exc


def newest_wal(listing: Listing, directory: Path) -> int:
    """Where the newest WAL starts; raise if files are there but no WAL."""
    if not listing.wals:
        raise CorruptLog(str(directory), None, "the write-ahead log is missing")
    return max(listing.wals)


class RootsAt:
    """Roots at chosen sizes, collected while a tree grows past them."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self._wanted = sorted({size for size in sizes if size})
        self.roots: dict[int, bytes] = {}

    def __call__(self, frontier: Frontier, leaves: list[bytes]) -> None:
        end = frontier.size + len(leaves)
        for size in self._wanted:
            if frontier.size < size <= end:
                self.roots[size] = frontier.extend(leaves[: size - frontier.size]).root()

    def check(self, said: Checkpoint, size: int, file: str, what: str) -> None:
        """Raise unless the tree that grew was ``said`` at its size."""
        if said.size > size:
            raise CorruptLog(
                file,
                None,
                f"the log ends at entry {size}, but {what} is of size {said.size}: "
                "its end was cut off",
            )
        if said.size and self.roots.get(said.size) != said.root:
            raise CorruptLog(
                file, None, f"the first {said.size} entries are not those that {what} covers"
            )
