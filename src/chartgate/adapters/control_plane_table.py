"""A mapping that never changes, of which the next version shares all that stayed as it was.

The rule kept: a reader that holds a version sees that version, whatever is changed meanwhile; a
change costs what it changes, not what is held (100,000 people, one cut off). Built like
``targets.entity_store``: a row of small dictionaries, of which a change copies those that it touches.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar, overload

_TABLES: Final = 1024
_MASK: Final = _TABLES - 1

V = TypeVar("V")
D = TypeVar("D")


class SharedTable(Mapping[str, V]):
    """Names to values. ``changed`` makes the next one."""

    __slots__ = ("_count", "_tables")

    def __init__(self, items: Iterable[tuple[str, V]] = ()) -> None:
        tables: list[dict[str, V]] = [{} for _ in range(_TABLES)]
        for key, value in items:
            tables[hash(key) & _MASK][key] = value
        self._tables = tables
        self._count = sum(map(len, tables))

    def changed(
        self, put: Iterable[tuple[str, V]], removed: Iterable[str] = ()
    ) -> "SharedTable[V]":
        """The next version; ``put`` wins over ``removed``."""
        made: SharedTable[V] = SharedTable.__new__(SharedTable)
        tables, own, count = list(self._tables), set[int](), self._count

        def table(key: str) -> dict[str, V]:
            place = hash(key) & _MASK
            if place not in own:
                own.add(place)
                tables[place] = dict(tables[place])
            return tables[place]

        for key in removed:
            if table(key).pop(key, None) is not None:
                count -= 1
        for key, value in put:
            held = table(key)
            count += key not in held
            held[key] = value
        made._tables, made._count = tables, count
        return made

    @overload
    def get(self, key: str, /) -> V | None: ...
    @overload
    def get(self, key: str, /, default: V) -> V: ...
    @overload
    def get(self, key: str, /, default: D) -> V | D: ...
    def get(self, key: str, /, default: V | D | None = None) -> V | D | None:
        """As of any mapping, without the detour over ``KeyError``."""
        return self._tables[hash(key) & _MASK].get(key, default)

    def __getitem__(self, key: str) -> V:
        return self._tables[hash(key) & _MASK][key]

    def __contains__(self, key: object) -> bool:
        return key in self._tables[hash(key) & _MASK]

    def __iter__(self) -> Iterator[str]:
        for table in self._tables:
            yield from table

    def __len__(self) -> int:
        return self._count
