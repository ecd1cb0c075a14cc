"""Hidden trailing columns: taken off before a row leaves, kept as evidence of whose row it was.

The rewriter puts hidden key columns last, so ``keep`` says how many columns the person sees. The
walk checks every length it passes and that the row ends exactly at its last value; a row that
does not is a violation, never a shorter row. Hot path: no objects per visible column.
"""

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct, error
from typing import Final, TypeAlias

from chartgate.pgwire.backend import RowDescription, decode_backend
from chartgate.pgwire.violation import ProtocolViolation

Values: TypeAlias = tuple[bytes | None, ...]

_LENGTH: Final = Struct(">i").unpack_from
_COUNT: Final = Struct(">H").unpack_from
_HEAD: Final = Struct(">BIH").pack
_ROW: Final = Struct(">BI").pack
_FRAME: Final = Struct(">BIH").unpack_from
_DATA_ROW: Final = 0x44


def strip_trailing(row_body: bytes, keep: int) -> tuple[bytes, Values]:
    """A whole DataRow message with the first ``keep`` columns, and the values that came after."""
    messages, stripped = strip_run(_ROW(_DATA_ROW, len(row_body) + 4) + row_body, keep)
    return messages, stripped[0]


def strip_rows(row_bodies: Iterable[bytes], keep: int) -> tuple[bytes, list[Values]]:
    """``strip_trailing`` for many bodies: the messages joined, the stripped values per row."""
    return strip_run(b"".join([_ROW(_DATA_ROW, len(b) + 4) + b for b in row_bodies]), keep)


def strip_run(run: bytes, keep: int) -> tuple[bytes, list[Values]]:
    """``strip_rows`` for DataRow messages on end, headers included, as ``Run.data`` has them."""
    out: list[bytes] = []
    stripped: list[Values] = []
    emit, length = out.append, _LENGTH
    shown = range(keep)
    at = 0
    end = len(run)
    try:
        while at < end:
            kind, size, columns = _FRAME(run, at)
            if kind != _DATA_ROW:
                raise ProtocolViolation("a run of rows holds another message")
            if columns < keep:
                raise ProtocolViolation("a row has fewer columns than are to be shown")
            stop = at + 1 + size
            first = at = at + 7
            for _ in shown:
                size = length(run, at)[0]
                at += 4
                if size > 0:
                    at += size
                elif size < -1:
                    raise ProtocolViolation("a value has a negative length")
            emit(_HEAD(_DATA_ROW, at - first + 6, keep))
            emit(run[first:at])
            hidden: list[bytes | None] = []
            for _ in range(columns - keep):
                size = length(run, at)[0]
                at += 4
                if size < 0:
                    if size < -1:
                        raise ProtocolViolation("a value has a negative length")
                    hidden.append(None)
                else:
                    hidden.append(run[at : at + size])
                    at += size
            if at != stop:
                raise ProtocolViolation("a row does not end with its last value")
            stripped.append(tuple(hidden))
    except error as exc:
        raise ProtocolViolation("a row ends inside a value") from exc
    if at != end:
        raise ProtocolViolation("a run of rows ends inside one")
    return b"".join(out), stripped


@lru_cache(maxsize=1024)
def strip_row_description(body: bytes, keep: int) -> bytes:
    """A whole RowDescription message with the first ``keep`` columns of the one in ``body``."""
    description = decode_backend(ord("T"), body)
    assert isinstance(description, RowDescription)
    if not 0 <= keep <= len(description.fields):
        raise ProtocolViolation("a row description has fewer columns than are to be shown")
    return RowDescription(description.fields[:keep]).encode()
