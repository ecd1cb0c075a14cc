"""Cedar values and their equality (Cedar policy language 4.5, "Data types").

The rules kept: values of different types are never equal (so ``True`` is not ``1``, unlike
Python's), sets have no order and no duplicates, records and sets compare deeply. ``key`` turns a
value into something hashable whose Python equality is Cedar's; everything here compares by it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from chartgate.model.principal import EntityUid

I64_MIN: Final = -(2**63)
I64_MAX: Final = 2**63 - 1


def is_i64(number: int) -> bool:
    """Whether a Long can hold the number; arithmetic beyond is an error, never a wrap."""
    return I64_MIN <= number <= I64_MAX


@dataclass(frozen=True, slots=True)
class Decimal:
    """A decimal: ``units`` times 10^-4, in 64 bits."""

    units: int


@dataclass(frozen=True, slots=True)
class IpAddr:
    """An IPv4 or IPv6 range: the address as written and its prefix length."""

    version: int
    address: int
    prefix: int

    @property
    def bits(self) -> int:
        """The width of an address: 32 or 128."""
        return 32 if self.version == 4 else 128

    @property
    def first(self) -> int:
        """The lowest address of the range."""
        shift = self.bits - self.prefix
        return self.address >> shift << shift

    @property
    def last(self) -> int:
        """The highest address of the range."""
        return self.first | ((1 << (self.bits - self.prefix)) - 1)


@dataclass(frozen=True, slots=True, order=True)
class DateTime:
    """Milliseconds since 1970-01-01T00:00:00Z, in 64 bits."""

    ms: int


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A length of time in milliseconds, in 64 bits; may be negative."""

    ms: int


class CedarSet:
    """A set: no order, no duplicates, any mix of types. Made by ``CedarSet.of``."""

    __slots__ = ("_items", "_keys")

    _items: tuple["Value", ...]
    _keys: frozenset[object]

    @classmethod
    def of(cls, values: Iterable["Value"]) -> "CedarSet":
        """The set of these values; the first of equal ones is kept."""
        unique: dict[object, Value] = {}
        for value in values:
            unique.setdefault(key(value), value)
        return cls.keyed(unique)

    @classmethod
    def keyed(cls, unique: "dict[object, Value]") -> "CedarSet":
        """The set of values that are known by their ``key`` already."""
        made = cls()
        made._items = tuple(unique.values())
        made._keys = frozenset(unique)
        return made

    def __iter__(self) -> Iterator["Value"]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, value: "Value") -> bool:
        return key(value) in self._keys

    def issuperset(self, other: "CedarSet") -> bool:
        """Whether every member of ``other`` is a member of this set."""
        return self._keys >= other.keys

    def meets(self, other: "CedarSet") -> bool:
        """Whether the two sets share a member."""
        return not self._keys.isdisjoint(other.keys)

    @property
    def keys(self) -> frozenset[object]:
        """The canonical keys of the members."""
        return self._keys

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CedarSet) and self._keys == other._keys

    def __hash__(self) -> int:
        return hash(self._keys)

    def __repr__(self) -> str:
        return f"CedarSet.of({list(self._items)!r})"


class RecordValue(Mapping[str, "Value"]):
    """A record: a frozen mapping from attribute names to values."""

    __slots__ = ("_items",)

    def __init__(self, items: "Mapping[str, Value] | Iterable[tuple[str, Value]]" = ()) -> None:
        self._items: dict[str, Value] = dict(items)

    def __getitem__(self, name: str) -> "Value":
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and key(self) == key(other)

    def __hash__(self) -> int:
        return hash(key(self))

    def __repr__(self) -> str:
        return f"RecordValue({self._items!r})"


Value: TypeAlias = (
    bool
    | int
    | str
    | EntityUid
    | CedarSet
    | Mapping[str, "Value"]
    | Decimal
    | IpAddr
    | DateTime
    | Duration
)

EMPTY: Final = RecordValue()


def key(value: Value) -> object:
    """Something hashable that is equal for two values exactly when Cedar says they are equal."""
    # (1) bool before int: to Python a bool is an int.
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, EntityUid):
        return ("entity", value.type, value.id)
    if isinstance(value, CedarSet):
        return ("set", value.keys)
    if isinstance(value, Mapping):
        return ("record", frozenset((name, key(item)) for name, item in value.items()))
    # (2) int, str and the extension dataclasses: Python's equality is already Cedar's.
    return value


def equal(left: Value, right: Value) -> bool:
    """Cedar's ``==``: never an error, false across types."""
    return key(left) == key(right)


def type_name(value: Value) -> str:
    """The type's name as Cedar spells it; for an entity, the word ``entity``."""
    for kind, name in _NAMES:
        if isinstance(value, kind):
            return name
    raise TypeError("not a Cedar value")


_NAMES: Final[tuple[tuple[type, str], ...]] = (
    (bool, "Bool"),
    (int, "Long"),
    (str, "String"),
    (EntityUid, "entity"),
    (CedarSet, "Set"),
    (Decimal, "decimal"),
    (IpAddr, "ipaddr"),
    (DateTime, "datetime"),
    (Duration, "duration"),
    (Mapping, "Record"),
)
