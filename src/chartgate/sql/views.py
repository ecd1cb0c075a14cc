"""What the rewriter is told about a table: which rows, and what stands in each column's place.

A view is the policy's answer for one person and one table, as SQL text over the alias ``this``
(the base table). Who made it, and from what, the rewriter does not know.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Level = Literal["full", "summary", "masked", "withheld", "mixed", "key"]


@dataclass(frozen=True, slots=True)
class TableName:
    """A relation, always with its schema: names are resolved here, never by the server."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the source declares it. ``type_sql`` is ``format_type(atttypid, atttypmod)``.

    ``key_domain`` is the ``table.column`` that its foreign key leads to in the end, itself when it
    has none: two columns of one domain may be compared.
    """

    name: str
    type_sql: str
    nullable: bool = True
    has_default: bool = False
    key_domain: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A base table of the source, columns in ``attnum`` order."""

    name: TableName
    oid: int
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ColumnView:
    """What stands for one column.

    ``expression`` has the column's own type; ``clear`` says it is exactly the raw column on every
    visible row. ``full_when`` is the condition under which a row's value may be seen in full
    (``None`` = on every visible row, ``"false"`` = never): what a write may refer to.
    """

    name: str
    expression: str
    level: Level
    clear: bool
    full_when: str | None


@dataclass(frozen=True, slots=True)
class TableView:
    """One person's view of one table.

    ``row_predicate`` of ``None`` means every row; ``"false"`` none. ``patient`` is an expression
    of type text giving the row's patient key, ``None`` for a table that is about no patient.
    ``patient_columns`` are the columns whose comparison with a value seeks a patient, with the
    identifier domain: ``{"patient_id": "patient", "mrn": "mrn"}``.
    """

    table: Table
    row_predicate: str | None
    columns: tuple[ColumnView, ...]
    patient: str | None = None
    patient_columns: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class WriteView:
    """What one person may write in one table by one action.

    ``row_predicate``: the condition on the row itself, over ``this`` (``None`` = any row,
    ``"false"`` = no row). ``columns``: condition per writable column, absent = never writable.
    ``policy_columns``: columns that policy or the data map reads, so that changing one would move
    the row in or out of somebody's reach; they are not writable by UPDATE.
    """

    row_predicate: str | None
    columns: Mapping[str, str | None]
    policy_columns: frozenset[str] = frozenset()


WriteAction = Literal["create", "update", "delete"]


class Views(Protocol):
    """What the rewriter asks while it walks a statement. Unknown tables raise ``Refused``."""

    def resolve(self, schema: str | None, name: str) -> TableName:
        """The relation a name means on the virtual search path; refuses what is not mapped."""

    def read(self, table: TableName) -> TableView:
        """The person's view of the table."""

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        """What the person may write there."""
