"""What the rest of the product sees of a statement: what it is, what goes upstream, whom it touches.

Rule kept: nothing reaches a source that was not rewritten here; a ``Rewritten.sql`` is always our
own text, read again by the same grammar before it is used.
"""

from dataclasses import dataclass
from enum import StrEnum

from chartgate.sql.views import TableName, TableView


class Kind(StrEnum):
    """What a statement does, for the audit event and the read-only check."""

    SELECT = "select"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    CATALOG = "catalog"
    """A SELECT on nothing but the system catalogs."""
    TRANSACTION = "transaction"
    SETTING = "setting"
    SHOW = "show"
    PREPARED = "prepared"
    """Housekeeping of prepared statements and portals: DEALLOCATE, CLOSE ALL, UNLISTEN."""
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Sought:
    """A patient key compared with a value: whom the person looked for, found or not."""

    domain: str
    value: str | None
    """The constant as text, or ``None`` for a parameter."""
    parameter: int | None
    """``n`` of ``$n``, or ``None`` for a constant."""


@dataclass(frozen=True, slots=True)
class TableRead:
    """A table that a statement refers to, with the columns it refers to (all for ``*``)."""

    table: TableName
    columns: tuple[str, ...]
    view: TableView
    write: str | None = None
    """The write action on this table, if it is the target of one."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A statement as it goes upstream, and what the answer will be about."""

    kind: Kind
    sql: str
    read_only: bool
    tables: tuple[TableRead, ...]
    hidden_columns: int
    """Patient-key columns (type text, NULL for an outer join's missing side) appended at the end
    of the result, to be stripped before the client sees it."""
    companion: str | None
    """To be run first, in the same transaction: one text column of patient keys. It may use
    only some of the statement's parameters."""
    scope_only: bool
    """Only ``count(*)``: patients are counted, and listed (by the companion) only if they are few."""
    written_hidden: bool
    """The hidden columns name patients written (RETURNING) instead of seen."""
    returning_added: bool
    """The statement had no RETURNING of its own: no row of it may reach the client."""
    sought: tuple[Sought, ...]
    limited: tuple[str, ...]
    """What the person is not shown, one sentence per table, without values."""
    statement_class: str
    barrier: bool


@dataclass(frozen=True, slots=True)
class SetPurpose:
    """``SET chartgate.purpose = …``, answered by the gateway; an empty value is RESET."""

    value: str


@dataclass(frozen=True, slots=True)
class ShowPurpose:
    """``SHOW chartgate.purpose``, answered by the gateway."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction statement; BEGIN is always at least REPEATABLE READ.

    The companion query and the statement it belongs to must see the same rows, so a weaker
    isolation level is raised, never granted.
    """

    verb: str
    sql: str


@dataclass(frozen=True, slots=True)
class Setting:
    """An allow-listed SET, RESET, SHOW or DISCARD, written out by us.

    ``virtual`` settings are kept by the gateway and never reach the server. After ``all`` the
    pinned settings must hold again: pin them in the startup packet, which is what RESET ALL and
    DISCARD ALL return to.
    """

    name: str
    sql: str
    verb: str = "set"
    value: str | None = None
    virtual: bool = False
