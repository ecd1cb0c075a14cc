"""Which operators may stand between two operands of which at least one is the row's.

The table mirrors ``row_terms.relation``: what it lets through has an answer there, on every row.
"""

from dataclasses import dataclass
from typing import Final

DECIMAL_METHODS: Final = frozenset(
    {"lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"}
)
_ORDERS: Final = frozenset({"<", "<=", ">", ">="})
_ORDERED: Final = frozenset({"Long", "datetime", "duration"})
_NO_ENTITY: Final = frozenset({"String", "Long", "Bool", "datetime", "decimal", "duration", ""})


class Objection(Exception):
    """What cannot be asked of a row, in words."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of an operand: of a row's attribute, or of what is computed from the row."""

    name: str
    attribute: str = ""
    is_set: bool = False
    computed: bool = False

    def __str__(self) -> str:
        if self.computed:
            return f"a {self.name} that is computed from the row"
        return f"the row attribute {self.attribute}"


KNOWN: Final = Kind("known")
"""Known before the query runs, whatever it is."""


def check_pair(
    op: str, left: Kind, right: Kind, *, unknown: frozenset[str], families: frozenset[str]
) -> None:
    """Raise ``Objection`` unless ``left op right`` can be asked. ``unknown``: entity types that
    form a hierarchy nobody knows here; ``families``: those of which all is known."""
    if left == right == KNOWN:
        return
    if op in {"==", "!="}:
        _equality(op, left, right)
    elif op in _ORDERS:
        _order(op, left, right, _ORDERED)
    elif op in DECIMAL_METHODS:
        _order(op, left, right, frozenset({"decimal"}))
    elif op == "in":
        _in(left, right, unknown, families)
    elif op == "contains":
        _contains(left, right)
    elif op in {"containsAll", "containsAny"}:
        _containment(op, left, right)
    else:
        raise Objection(f"{op} cannot be asked of a row")


def _equality(op: str, left: Kind, right: Kind) -> None:
    if KNOWN in (left, right):
        return
    if left.is_set or right.is_set:
        raise Objection(f"{op} may compare {_set_of(left, right)} with a known set only")
    if left.name != right.name and left.name and right.name:
        raise Objection(f"{op} compares {left} with {right}, which is of another type")


def _set_of(left: Kind, right: Kind) -> Kind:
    return left if left.is_set or not right.is_set else right


def _order(op: str, left: Kind, right: Kind, kinds: frozenset[str]) -> None:
    for kind in (left, right):
        if kind != KNOWN and (kind.is_set or (kind.name and kind.name not in kinds)):
            raise Objection(f"{op} cannot be asked of {kind}")
    if KNOWN not in (left, right) and left.name != right.name and left.name and right.name:
        raise Objection(f"{op} compares {left} with {right}, which is of another type")


def _in(left: Kind, right: Kind, unknown: frozenset[str], families: frozenset[str]) -> None:
    for kind in (left, right):
        if kind != KNOWN and kind.name in _NO_ENTITY and kind.name:
            raise Objection(f"in cannot be asked of {kind}")
    if left == KNOWN:
        return
    if left.is_set:
        raise Objection(f"in cannot be asked of {left}")
    if left.name in unknown:
        raise Objection(f"in cannot be asked of {left}: not every {left.name} is known here")
    if right != KNOWN and left.name in families:
        raise Objection(f"in between {left} and {right}: compare with something known")


def _contains(left: Kind, right: Kind) -> None:
    if left != KNOWN and not left.is_set:
        raise Objection(f"contains cannot be asked of {left}, which is no set")
    if right != KNOWN and (right.is_set or right.computed):
        raise Objection(f"contains cannot take {right}")


def _containment(op: str, left: Kind, right: Kind) -> None:
    for kind in (left, right):
        if kind != KNOWN and not kind.is_set:
            raise Objection(f"{op} cannot be asked of {kind}, which is no set")
    if KNOWN not in (left, right):
        raise Objection(f"{op} between {left} and {right}: one of the two must be known")
