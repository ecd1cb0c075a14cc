"""Reading the audit log without a lock, while its writer appends.

Rules kept: a reader sees whole commits only, never a torn one; it checks every checksum on the
way and names file and offset of the first damage; it keeps no promise about signatures, which is
the work of ``log_verify``. When the writer rolls the WAL into a segment under our hands, the open
file stays readable and the next question finds the new names.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from chartgate.adapters.log_disk import CorruptLog, Listing, segment_name, wal_name
from chartgate.errors import LogUnavailable
from chartgate.tlog import segment as packed
from chartgate.tlog import wal
from chartgate.tlog.checkpoint import peek
from chartgate.tlog.tile import TILE_WIDTH

_RETRIES = 5
_CHUNK = 1 << 18


class SegmentFile:
    """One packed segment: index at once, entries a bundle at a time."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file = path.open("rb")
        try:
            size = os.fstat(self._file.fileno()).st_size
            self.header = packed.parse_header(self._file.read(packed.HEADER_BYTES))
            if self.header.index_offset > size:
                raise packed.MalformedSegment(size, "the segment ends within its entries")
            self._file.seek(self.header.index_offset)
            self.segment = packed.parse_tail(self.header, self._file.read())
        except packed.MalformedSegment as exc:
            self._file.close()
            raise CorruptLog(self.name, exc.offset, exc.reason) from exc
        except BaseException:
            self._file.close()
            raise

    def bundle(self, bundle: packed.Bundle) -> tuple[bytes, ...]:
        """The entries of one bundle."""
        self._file.seek(bundle.start)
        try:
            return packed.open_bundle(bundle, self._file.read(bundle.end - bundle.start))
        except packed.MalformedSegment as exc:
            raise CorruptLog(self.name, exc.offset, exc.reason) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


@dataclass(slots=True)
class _WalView:
    """What is known of the newest WAL file: grows by reading on, what is signed is never read twice.

    Entries that no checkpoint covers yet are not looked at: nobody sees them before.
    """

    name: str
    head: wal.Head
    end: int
    size: int
    checkpoint: str
    firsts: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)

    def take(self, run: list[wal.Placed]) -> None:
        """Go on by entries that were written first, if there are any, and the commit over them."""
        size = self.size
        for placed in run:
            frame = placed.frame
            if isinstance(frame, wal.Head) or not wal.follows(frame, self.size, size):
                raise CorruptLog(
                    self.name, placed.offset, "this frame does not follow the one before"
                )
            size += len(frame.entries)
        commit = run[-1].frame
        assert isinstance(commit, wal.Commit)
        if peek(commit.checkpoint).size != size:
            raise CorruptLog(self.name, run[-1].offset, "a checkpoint of another size")
        for placed in run:
            if not isinstance(placed.frame, wal.Head) and placed.frame.entries:
                self.firsts.append(placed.frame.first)
                self.places.append((placed.offset, placed.end))
        self.size, self.checkpoint, self.end = size, commit.checkpoint, run[-1].end


class LogReader:
    """Read-only view of a log directory; each question looks at what is there now."""

    def __init__(self, directory: Path) -> None:
        self._directory = Path(directory)
        self._wal: _WalView | None = None

    @property
    def size(self) -> int:
        """Entries in whole commits."""
        return self._refresh().size

    @property
    def checkpoint(self) -> str:
        """The newest signed checkpoint; its signature is not looked at here."""
        return self._refresh().checkpoint

    def head(self) -> tuple[int, str]:
        """The size, and the signed checkpoint over exactly as many entries."""
        view = self._refresh()
        return view.size, view.checkpoint

    def bundle_roots(self) -> tuple[bytes, ...]:
        """The tree roots of all whole bundles of 256 in packed segments, from the first on."""
        roots: list[bytes] = []
        view = self._refresh()
        for number in range(view.head.first // view.head.segment_leaves):
            name = segment_name(number)
            try:
                with SegmentFile(self._directory / name) as opened:
                    bundles = opened.segment.bundles
            except FileNotFoundError as exc:
                raise CorruptLog(name, None, "this segment is missing") from exc
            if any(bundle.count != TILE_WIDTH for bundle in bundles):
                break  # segments smaller than a bundle: only tests make them
            roots.extend(bundle.root for bundle in bundles)
        return tuple(roots)

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(index, entry) from ``start`` to before ``stop``, or to the end as it is at the start."""
        view = self._refresh()
        end = view.size if stop is None else min(stop, view.size)
        index = max(start, 0)
        while index < min(end, view.head.first):
            leaves = view.head.segment_leaves
            yield from self._from_segment(index, leaves, end)
            index = (index // leaves + 1) * leaves
        if index < end:
            yield from self._from_wal(index, end)

    def _from_segment(self, start: int, leaves: int, end: int) -> Iterator[tuple[int, bytes]]:
        number = start // leaves
        path = self._directory / segment_name(number)
        try:
            opened = SegmentFile(path)
        except FileNotFoundError as exc:
            raise CorruptLog(path.name, None, "this segment is missing") from exc
        with opened:
            if opened.header.first != number * leaves or opened.header.leaves != leaves:
                raise CorruptLog(path.name, 0, "a segment of another place")
            for bundle in opened.segment.bundles:
                if bundle.first + bundle.count <= start:
                    continue
                if bundle.first >= end:
                    return
                for index, entry in enumerate(opened.bundle(bundle), bundle.first):
                    if start <= index < end:
                        yield index, entry

    def _from_wal(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        for _ in range(_RETRIES):
            view = self._refresh()
            if start < view.head.first:  # rolled meanwhile
                yield from self.entries(start, min(end, view.head.first))
                start = min(end, view.head.first)
                if start >= end:
                    return
            try:
                file = (self._directory / view.name).open("rb")
            except FileNotFoundError:
                continue
            with file:
                at = bisect_right(view.firsts, start) - 1
                for offset, after in view.places[at:]:
                    file.seek(offset)
                    found, _end = wal.scan(file.read(after - offset), base=offset)
                    if len(found) != 1 or isinstance(frame := found[0].frame, wal.Head):
                        raise CorruptLog(view.name, offset, "this frame has changed")
                    for index, entry in enumerate(frame.entries, frame.first):
                        if index >= end:
                            return
                        if index >= start:
                            yield index, entry
            return
        raise LogUnavailable(f"the audit log in {self._directory} changes faster than it is read")

    def _refresh(self) -> _WalView:
        failure: CorruptLog | None = None
        for _ in range(_RETRIES):
            try:
                view = self._read_on()
            except FileNotFoundError:  # rolled between listing and opening
                continue
            except CorruptLog as exc:  # or a write seen half: what is damaged stays damaged
                failure, self._wal = exc, None
                continue
            except OSError as exc:
                raise LogUnavailable(f"reading {self._directory}: {exc.strerror}") from exc
            self._wal = view
            return view
        if failure is not None:
            raise failure
        raise LogUnavailable(f"there is no audit log in {self._directory}")

    def _read_on(self) -> _WalView:
        listing = Listing(self._directory)
        if not listing.wals:
            if listing.segments:
                raise CorruptLog(str(self._directory), None, "segments, but no write-ahead log")
            raise FileNotFoundError
        name = listing.wals[max(listing.wals)]
        view = self._wal if self._wal is not None and self._wal.name == name else None
        start = view.end if view is not None else 0
        with (self._directory / name).open("rb") as file:
            if os.fstat(file.fileno()).st_size < start:
                raise CorruptLog(name, start, "the file has become shorter")
            frames = _frames(file, name, start)
        if view is None:
            if not frames or not isinstance(frames[0].frame, wal.Head):
                raise CorruptLog(name, 0, "the file does not begin with a head frame")
            head = frames[0].frame
            if wal_name(head.first) != name:
                raise CorruptLog(name, 0, "the file is not the one that its name says")
            view = _WalView(name, head, frames[0].end, head.first, head.checkpoint)
            frames = frames[1:]
        run: list[wal.Placed] = []
        for placed in frames:
            run.append(placed)
            if not isinstance(placed.frame, wal.Entries):
                view.take(run)
                run = []
        return view


def _frames(file: BinaryIO, name: str, start: int) -> list[wal.Placed]:
    """Whole frames from ``start`` on; zeros that were put there for frames to come are not read."""
    frames: list[wal.Placed] = []
    size = _CHUNK
    while True:
        file.seek(start)
        data = file.read(size)
        found, end = wal.scan(data, base=start)
        frames += found
        if found:
            start = found[-1].end
        if isinstance(end, wal.Clean) and (not found or start < file.tell()):
            return frames  # nothing more, or zeros
        if not isinstance(end, wal.Clean):
            if len(data) < size:
                if isinstance(end, wal.Damaged):
                    raise CorruptLog(name, end.offset, end.reason)
                return frames
            if not found:
                size *= 4  # a frame larger than what was read, or what only looks damaged so
