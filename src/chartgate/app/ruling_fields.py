"""What is asked of a record: categories and fields, with the labels that each comes to.

The rules kept (design: Labels): a cell's labels are its column's category, the row's labels and the
patient's, and its level is the lowest of theirs; a row whose category is hidden has no visible
cell. The row is not known here, so every label that a row of the table can carry counts, unless a
service that may say so names them. A field without a label is seen by nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from chartgate.app.ruling_shape import WrongType
from chartgate.app.table_plan import RECORD_IDS
from chartgate.datamap.model import KEY, UNLABELLED, DataMap
from chartgate.model.disclosure import Disclosure

NOT_PHI: Final = frozenset({"technical", "audit_log"})
"""Categories of what belongs to no patient."""
_FULL: Final = int(Disclosure.FULL)
_VISIBLE: Final = int(Disclosure.MASKED)
_MOST_FIELDS: Final = 2_000
_MOST_KEPT: Final = 4_096


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing asked about, a category or a field."""

    name: str
    category: str
    """The label it is told under; empty where it has none."""
    labels: tuple[str, ...]
    """All must allow it."""
    row: tuple[str, ...] = ()
    """All must be visible at some level; and, where it is written, allow that."""
    is_field: bool = False
    is_key: bool = False
    """A surrogate key: below full there is a pseudonym, and so it is masked and never withheld."""


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Everything that one question asks of a record; equal only to itself."""

    cells: tuple[Cell, ...]
    categories: frozenset[str]
    """What the caller's scope must list."""
    labels: tuple[str, ...]
    """All labels of all cells, for an action that is allowed or not."""
    is_phi: bool
    needs_patient: bool
    unlabelled: bool
    """Whether a field has no label."""
    unknown: bool = False
    """Whether a category is none of the policies'."""

    def needed(self, level: int) -> tuple[tuple[str, int], ...]:
        """At which level each label must be seen, so that everything is seen at ``level``."""
        found: dict[str, int] = {}
        for cell in self.cells:
            for name in cell.row:
                found[name] = max(found.get(name, 0), _VISIBLE)
            # Of a key, a pseudonym is always to be had where its row is.
            for name in () if cell.is_key and level <= _VISIBLE else cell.labels:
                found[name] = max(found.get(name, 0), _FULL if cell.is_key else level)
        return tuple(found.items())


class Fields:
    """From what a question says to what it wants; each combination is worked out once."""

    def __init__(self, data_map: DataMap | None, categories: frozenset[str]) -> None:
        self._categories: Final = categories
        self._kept: Final[dict[object, Wanted]] = {}
        self._columns: Final = {} if data_map is None else _columns(data_map, categories)

    def wanted(self, said: Mapping[str, Any], labels: tuple[str, ...] | None) -> Wanted | None:
        """What the properties of a record ask about; None for nothing.

        ``labels``: the row's own, where they were said and believed. Raises ``WrongType``.
        """
        one, many, fields = said.get("category"), said.get("categories"), said.get("fields")
        if one.__class__ is str and many is None and fields is None and labels is None:
            kept = self._kept.get(one)
            return self._keep(one, (one,), (), None) if kept is None else kept
        categories = _names(one, many)
        listed = _fields(fields)
        if not categories and not listed:
            return None
        key = (categories, listed, labels)
        kept = self._kept.get(key)
        return self._keep(key, categories, listed, labels) if kept is None else kept

    def _keep(
        self,
        key: object,
        categories: tuple[str, ...],
        fields: tuple[tuple[str, str | None], ...],
        labels: tuple[str, ...] | None,
    ) -> Wanted:
        made = self._made(categories, fields, labels)
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        if not made.unknown:
            # Names that callers make up must not fill the memory.
            self._kept[key] = made
        return made

    def _made(
        self,
        categories: tuple[str, ...],
        fields: tuple[tuple[str, str | None], ...],
        labels: tuple[str, ...] | None,
    ) -> Wanted:
        extra = labels or ()
        cells = [Cell(name, name, _all(name, *extra)) for name in categories]
        needs_patient = any(name not in NOT_PHI for name in categories)
        unlabelled = False
        for name, category in fields:
            if category is not None:
                cells.append(Cell(name, category, _all(category, *extra), is_field=True))
                needs_patient |= category not in NOT_PHI
                continue
            column = self._columns.get(name)
            if column is None or not column.cell.category:
                unlabelled = True
                cells.append(Cell(name, "", (), is_field=True))
                needs_patient |= column is None or column.has_patient
                continue
            cells.append(column.cell if labels is None else column.with_labels(labels))
            needs_patient |= column.has_patient
        named = frozenset(cell.category for cell in cells if cell.category)
        every = _all(*(label for cell in cells for label in (*cell.labels, *cell.row)))
        return Wanted(
            tuple(cells),
            named,
            every,
            is_phi=needs_patient or any(name not in NOT_PHI for name in named),
            needs_patient=needs_patient,
            unlabelled=unlabelled,
            unknown=not named.union(every) <= self._categories,
        )


@dataclass(frozen=True, slots=True)
class _Column:
    cell: Cell
    row_category: str
    has_patient: bool

    def with_labels(self, labels: tuple[str, ...]) -> Cell:
        """The cell in a row of which exactly these labels are known."""
        return Cell(
            self.cell.name,
            self.cell.category,
            _all(self.cell.category, *labels),
            _all(self.row_category, *labels),
            is_field=True,
            is_key=self.cell.is_key,
        )


def _columns(data_map: DataMap, categories: frozenset[str]) -> dict[str, _Column]:
    found: dict[str, _Column] = {}
    for table in data_map.tables.values():
        labels = tuple(sorted({label.category for label in table.row_labels}))
        for name, column in table.columns.items():
            place = f"{table.name}.{name}"
            is_key = column.category == KEY
            # A key is told under the category that it follows: that of pseudonyms, where there is
            # one, else its row's.
            own = RECORD_IDS if is_key and RECORD_IDS in categories else column.category
            own = table.row_category if own == KEY else own
            if own == UNLABELLED:
                cell = Cell(place, "", (), is_field=True)
            else:
                row = _all(table.row_category, *labels)
                cell = Cell(place, own, _all(own, *labels), row, is_field=True, is_key=is_key)
            found[place] = _Column(cell, table.row_category, table.patient is not None)
    return found


def _all(*labels: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels))


def _names(one: Any, many: Any) -> tuple[str, ...]:
    if one is not None and one.__class__ is not str:
        raise WrongType("resource.category is not a name")
    if many is None:
        return () if one is None else (one,)
    if many.__class__ is not list or any(name.__class__ is not str for name in many):
        raise WrongType("resource.categories is not a list of names")
    if len(many) > _MOST_FIELDS:
        raise WrongType(f"more than {_MOST_FIELDS} categories in one question")
    return _all(*(() if one is None else (one,)), *many)


def _fields(said: Any) -> tuple[tuple[str, str | None], ...]:
    if said is None:
        return ()
    if said.__class__ is list and all(name.__class__ is str for name in said):
        listed = tuple((name, None) for name in dict.fromkeys(said))
    elif said.__class__ is dict and all(name.__class__ is str for name in said.values()):
        listed = tuple(said.items())
    else:
        raise WrongType("resource.fields is neither a list of columns nor names with categories")
    if len(listed) > _MOST_FIELDS:
        raise WrongType(f"more than {_MOST_FIELDS} fields in one question")
    return listed
