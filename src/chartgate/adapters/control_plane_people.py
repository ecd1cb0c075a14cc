"""People as a node keeps them: small, until somebody asks.

Rules kept: what is kept of a person is what her rows said, in a few strings of bytes; her assignments
become values when they are first read, so that 5,000,000 of them are loaded in seconds and held in
a few hundred megabytes; whoever asks gets the same value until her rows change. Only the newest few
thousand are kept as values.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Generic, TypeVar, overload

from chartgate.adapters.control_plane_table import SharedTable
from chartgate.model.principal import Assignment, Person

_TIMES: Final = struct.Struct(">qqq")
"""Of an assignment: its number, and from when until when, as PostgreSQL sends them."""
_Y2K: Final = datetime(2000, 1, 1, tzinfo=UTC)
_OPEN_END: Final = (1 << 63) - 1
_RECORD: Final = b"\x1e"
_DEPARTMENT: Final = "\x1f"
_REFERENCE: Final = "\x1d"
_PATIENT: Final = "\x1c"
_MOST_VALUES: Final = 8_192
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)

R = TypeVar("R")
D = TypeVar("D")


class StoredPerson:
    """A person's row, with her assignments still packed."""

    __slots__ = ("active", "full_name", "name", "times", "uid", "until", "verifier", "words")

    def __init__(
        self,
        uid: str,
        name: str,
        full_name: str,
        active: bool,
        verifier: str | None,
        until: int | None,
        times: bytes,
        words: bytes,
    ) -> None:
        self.uid: Final = uid
        self.name: Final = name
        self.full_name: Final = full_name
        self.active: Final = active
        self.verifier: Final = verifier
        self.until: Final = until
        self.times: Final = times
        self.words: Final = words

    def person(self) -> Person:
        """The value; made anew each time."""
        return Person(self.uid, self.name, self.full_name, self.active, self._assignments())

    def _assignments(self) -> tuple[Assignment, ...]:
        if not self.times:
            return ()
        words = self.words.split(_RECORD)
        # strict: were there a separator in a name, nothing of hers would count
        rows = zip(_TIMES.iter_unpack(self.times), words, strict=True)
        return tuple(_assignment(since, until, word) for (_, since, until), word in sorted(rows))


class Holder:
    """Remembers the values that were asked for last; shared by all versions of a node's people."""

    __slots__ = ("_before", "_made")

    def __init__(self) -> None:
        self._made: dict[StoredPerson, Person] = {}
        self._before: dict[StoredPerson, Person] = {}

    def person(self, stored: StoredPerson) -> Person:
        """The value of a row: the same one as long as somebody asks for it now and then."""
        made = self._made.get(stored)
        if made is None:
            made = self._before.get(stored)
            if len(self._made) >= _MOST_VALUES:
                self._before, self._made = self._made, {}
            if made is None:
                made = stored.person()
            self._made[stored] = made
        return made


class View(Mapping[str, R], Generic[R]):
    """The rows of a table as values; whom ``read`` answers None for is not in it."""

    __slots__ = ("_read", "_table")

    def __init__(
        self, table: SharedTable[StoredPerson], read: Callable[[StoredPerson], R | None]
    ) -> None:
        self._table: Final = table
        self._read: Final = read

    def __getitem__(self, key: str) -> R:
        found = self._read(self._table[key])
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[str]:
        return (key for key, stored in self._table.items() if self._read(stored) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class PeopleView(View[Person]):
    """People by login name."""

    __slots__ = ()

    def __init__(self, table: SharedTable[StoredPerson], holder: Holder) -> None:
        super().__init__(table, holder.person)

    @overload
    def get(self, key: str, /) -> Person | None: ...
    @overload
    def get(self, key: str, /, default: Person) -> Person: ...
    @overload
    def get(self, key: str, /, default: D) -> Person | D: ...
    def get(self, key: str, /, default: D | None = None) -> Person | D | None:
        """As of any mapping, but on the way of every decision."""
        stored = self._table.get(key)
        return default if stored is None else self._read(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, key: object) -> bool:
        return key in self._table


def instant(micros: int) -> datetime:
    """Microseconds since 2000, as PostgreSQL sends a ``timestamptz``; what Python's calendar does
    not have is brought to its first or last instant."""
    try:
        return _instant(micros)
    except OverflowError:
        return _FIRST if micros < 0 else _LAST


@lru_cache(maxsize=16_384)
def _instant(micros: int) -> datetime:
    return _Y2K + timedelta(microseconds=micros)


@lru_cache(maxsize=16_384)
def _parts(word: bytes) -> tuple[str, str | None, str | None, str | None]:
    """Role, department, reference and patient; the same strings for the same text."""
    text, sign, patient = word.decode().partition(_PATIENT)
    found_patient = patient if sign else None
    text, sign, reference = text.partition(_REFERENCE)
    found_reference = reference if sign else None
    role, sign, department = text.partition(_DEPARTMENT)
    return role, department if sign else None, found_reference, found_patient


def _assignment(since: int, until: int, word: bytes) -> Assignment:
    role, department, reference, patient = _parts(word)
    end = None if until == _OPEN_END else instant(until)
    return Assignment(role, department, instant(since), end, reference, patient)
