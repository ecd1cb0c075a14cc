"""A body in chunks (RFC 9112, 7.1), sans-IO; extensions and trailers are read over.

The rule kept: what is not exactly as the specification has it is refused, since another reader could
see the end of the body elsewhere (RFC 9112, 11.2).
"""

import re
from typing import Final

from chartgate.adapters.decision_limits import Limits

_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_MAX_CHUNK_LINE: Final = 256
_MAX_CHUNKS: Final = 4_096


class HttpViolation(Exception):
    """A request that is refused before it is understood; the connection ends with the answer."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Chunks:
    """Takes what belongs to the body; ``body`` is it, once it ``is_whole``."""

    __slots__ = ("_count", "_left", "_limits", "_size", "_state", "_trailers", "body", "has_begun")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = "size"
        self._left = self._size = self._trailers = self._count = 0
        self.has_begun = False
        self.body = bytearray()

    @property
    def is_whole(self) -> bool:
        return self._state == "done"

    def feed(self, data: bytes, at: int) -> int:
        """Take what belongs to the body, from a place on; where the rest begins is answered."""
        self.has_begun = self.has_begun or len(data) > at
        while self._state != "done":
            if self._state == "data":
                part = data[at : at + self._left]
                if not part:
                    break
                self.body += part
                at += len(part)
                self._left -= len(part)
                if self._left:
                    break
                self._state = "end"
            elif self._state == "end":
                if len(data) - at < 2:
                    if data[at:] not in (b"", b"\r"):
                        raise HttpViolation(400, "a chunk is longer than it says")
                    break
                if data[at : at + 2] != b"\r\n":
                    raise HttpViolation(400, "a chunk is longer than it says")
                at += 2
                self._state = "size"
            else:
                end = data.find(b"\r\n", at, at + _MAX_CHUNK_LINE)
                if end < 0:
                    if len(data) - at >= _MAX_CHUNK_LINE:
                        raise HttpViolation(400, "a chunk's first line is too long")
                    break
                self._line(data[at:end])
                at = end + 2
        return at

    def _line(self, line: bytes) -> None:
        if self._state == "trailer":
            if not line:
                self._state = "done"
                return
            self._trailers += len(line)
            if self._trailers > self._limits.head or b"\n" in line or b":" not in line:
                raise HttpViolation(400, "the trailers are not understood")
            return
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise HttpViolation(400, "the size of a chunk is not a number")
        self._left = int(found[1], 16)
        self._size += self._left
        # many small chunks cost more than their bytes
        self._count += 1
        if self._size > self._limits.body or self._count > _MAX_CHUNKS:
            raise HttpViolation(413, "the body is too large")
        self._state = "data" if self._left else "trailer"
