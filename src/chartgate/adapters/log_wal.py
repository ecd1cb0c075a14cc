"""The write-ahead log's file: frames behind each other, and room made ahead of them.

Rules kept: room is zeros that are on the medium, so that a write into it changes no length and its sync
has less to do; nobody makes room where somebody writes; an orderly end cuts the room off. A disk that
is too full for the room is not an error yet: there may be space for what is to be written.
"""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

from chartgate.adapters.log_disk import Disk

_STEP = 1 << 18
_LEAST = 1 << 16
_MOST = 4 << 20
"""Room ahead doubles up to this with the size of the file."""


class WalFile:
    """One file, open for writing behind what it holds. ``extend`` may run beside the others."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self.end = os.lseek(self._fd, 0, os.SEEK_END)
        """Offset behind the last frame."""
        self._reach = self.end
        self._reaching = threading.Lock()
        self._may_extend = True

    def write(self, frame: bytes) -> None:
        """Write behind what there is."""
        end = self.end + len(frame)
        if end <= self._reach:
            self._disk.write(self._fd, frame)
            self.end = end
            return
        with self._reaching:
            self._disk.write(self._fd, frame)
            self.end, self._reach = end, max(self._reach, end)

    def sync(self) -> None:
        """What was written is on the medium when this returns."""
        self._disk.datasync(self._fd)

    @property
    def is_extension_due(self) -> bool:
        """Whether ``extend`` has something to do."""
        return self._may_extend and self._reach - self.end < self._room // 2

    @property
    def _room(self) -> int:
        return min(max(_LEAST, self.end), _MOST)

    def extend(self) -> None:
        """Make room ahead, in steps: a sync beside it waits for one of them at most."""
        # a file description of its own: what failed to be synced for the other still fails there
        fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            goal = self.end + self._room
            while self._reach < goal:
                with self._reaching:
                    step = min(_STEP, goal - self._reach)
                    try:
                        self._disk.fill(fd, self._reach, step)
                    except OSError as exc:
                        if exc.errno not in {errno.ENOSPC, errno.EDQUOT}:
                            raise
                        self._may_extend = False
                        return
                    self._reach += step
                self._disk.settle(fd)
        finally:
            os.close(fd)

    def cut(self) -> None:
        """Let go of the room ahead."""
        if os.fstat(self._fd).st_size > self.end:
            os.ftruncate(self._fd, self.end)
            self.sync()
            self._reach = self.end

    def close(self) -> None:
        """Let go of the file; says nothing of what is on the medium."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):
                os.close(fd)
