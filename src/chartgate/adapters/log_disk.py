"""The disk under the audit log: the few operations that must be durable, and the file names.

Rules kept: a whole file appears by temporary file, fsync, rename, fsync of its directory; an error
of a sync is passed on once and never retried, since the kernel may have dropped the dirty pages
and the next sync would then succeed without them. Tests put a disk that fails in the place of
``Disk``.
"""

import os
import re
import sys
from pathlib import Path

from chartgate.errors import Corrupt

CHECKPOINT = "checkpoint"
LOCK = "lock"

_WAL = re.compile(r"wal-(\d{16,20})\.log")
_SEGMENT = re.compile(r"segment-(\d{8,12})\.seg")
_TORN = re.compile(r"torn-(\d{16,20})-([0-9a-f]{64})")


class CorruptLog(Corrupt):
    """A file of the log is not what was written: which, where, why."""

    code = "corrupt_log"

    def __init__(self, file: str, offset: int | None, reason: str) -> None:
        where = file if offset is None else f"{file} at offset {offset}"
        super().__init__(f"{where}: {reason}")
        self.file = file
        self.offset = offset
        self.reason = reason


class Disk:
    """The real one."""

    def write(self, fd: int, data: bytes) -> None:
        """Write all of ``data``."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def datasync(self, fd: int) -> None:
        """Bytes and file size are on the medium when this returns."""
        if sys.platform == "darwin":  # pragma: no cover  fsync there leaves the drive's cache
            import fcntl

            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def fill(self, fd: int, at: int, size: int) -> None:
        """Zeros at an offset where the file ends: beside another who writes before it."""
        os.lseek(fd, at, os.SEEK_SET)
        self.write(fd, bytes(size))

    def settle(self, fd: int) -> None:
        """As ``datasync``, of room that was filled."""
        self.datasync(fd)

    def create(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """A new file with these bytes, on the medium."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            self.write(fd, data)
            self.datasync(fd)
        finally:
            os.close(fd)

    def replace(self, path: Path, data: bytes) -> None:
        """The file has these bytes or, if we die, still its old ones (or is still absent)."""
        temporary = path.with_name(path.name + ".tmp")
        temporary.unlink(missing_ok=True)
        self.create(temporary, data)
        temporary.replace(path)
        self.sync_directory(path.parent)

    def sync_directory(self, directory: Path) -> None:
        """Names made, renamed or removed in it are on the medium."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def wal_name(first: int) -> str:
    return f"wal-{first:016d}.log"


def segment_name(number: int) -> str:
    return f"segment-{number:08d}.seg"


def torn_name(size: int, digest: str) -> str:
    return f"torn-{size:016d}-{digest}"


class Listing:
    """The names in a log directory, sorted into what they are; a name we do not know is kept."""

    def __init__(self, directory: Path) -> None:
        self.wals: dict[int, str] = {}
        self.segments: dict[int, str] = {}
        self.torn: dict[str, tuple[int, str]] = {}
        self.temporary: list[str] = []
        self.unknown: list[str] = []
        self.has_checkpoint = False
        for name in sorted(os.listdir(directory)):
            if (match := _WAL.fullmatch(name)) and wal_name(int(match[1])) == name:
                self.wals[int(match[1])] = name
            elif (match := _SEGMENT.fullmatch(name)) and segment_name(int(match[1])) == name:
                self.segments[int(match[1])] = name
            elif match := _TORN.fullmatch(name):
                self.torn[name] = (int(match[1]), match[2])
            elif name.endswith(".tmp"):
                self.temporary.append(name)
            elif name == CHECKPOINT:
                self.has_checkpoint = True
            elif name != LOCK:
                self.unknown.append(name)

    def check_segments(self) -> int:
        """The number of segments; raise if one between them is missing."""
        for number in range(len(self.segments)):
            if number not in self.segments:
                raise CorruptLog(segment_name(number), None, "this segment is missing")
        return len(self.segments)
