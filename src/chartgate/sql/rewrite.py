"""One statement in, what may go upstream out.

Rule kept: whatever is not a statement we know, wholly, is refused (gateway: allow-list by node).
"""

from collections.abc import Iterable
from typing import Final, cast

from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql import session, write
from chartgate.sql.admit import NotAllowed, admit, spoken
from chartgate.sql.capture import companion, few
from chartgate.sql.expressions import has_aggregate
from chartgate.sql.parse import ParsedStatement
from chartgate.sql.query import Pass
from chartgate.sql.redact import statement_class
from chartgate.sql.relation import fill
from chartgate.sql.scope import Base, CannotCarry
from chartgate.sql.shape import is_plain
from chartgate.sql.statement import (
    Kind,
    Rewritten,
    SetPurpose,
    Setting,
    ShowPurpose,
    TableRead,
    Transaction,
)
from chartgate.sql.system_objects import Scene
from chartgate.sql.tree import children, inner, names
from chartgate.sql.verify import deparsed
from chartgate.sql.views import ColumnView, TableName, TableView, Views

_SYSTEM = frozenset({"pg_catalog", "information_schema"})
_WORDS: Final = {
    "summary": "shown as a summary",
    "masked": "shown masked",
    "withheld": "not shown",
    "mixed": "in full on some rows only",
}
_NOTHING = Scene(tables=(), schemas=(), search_path=(), login="")

Answer = Rewritten | SetPurpose | ShowPurpose | Transaction | Setting


def rewrite(statement: ParsedStatement, views: Views) -> Answer:
    """What a statement becomes for the person whose ``views`` these are; raises ``Refused``."""
    which = statement.node.WhichOneof("node")
    match which:
        case None:
            return _housekeeping(Kind.EMPTY, "")
        case "select_stmt":
            return rewrite_select(statement.node, views)
        case "insert_stmt" | "update_stmt" | "delete_stmt":
            return write.rewrite_write(statement.node, views, rewrite_select)
        case "transaction_stmt":
            return session.transaction(statement.node.transaction_stmt)
        case "variable_set_stmt":
            return session.set_variable(statement.node.variable_set_stmt)
        case "variable_show_stmt":
            return session.show_variable(statement.node.variable_show_stmt)
        case "discard_stmt":
            return session.discard(statement.node.discard_stmt)
        case "deallocate_stmt" | "close_portal_stmt" | "unlisten_stmt":
            return _housekeeping(
                Kind.PREPARED, session.housekeeping(statement.node), statement_class(statement)
            )
        case _:
            raise NotAllowed(f"{spoken(inner(statement.node).DESCRIPTOR.name)} is not allowed")


def scene_of(views: Views) -> Scene:
    """What the catalog shows this person; nothing, for views that do not say."""
    return cast(Scene, getattr(views, "scene", _NOTHING))


def rewrite_select(node: pb.Node, views: Views) -> Rewritten:
    """A SELECT, also one that stands inside a write."""
    original = pb.Node()
    original.CopyFrom(node)
    admit(original)
    select = original.select_stmt
    carry = is_plain(select, top=True)
    try:
        done, main, count = _pass(original, views, carry=carry)
    except CannotCarry:
        carry = False
        done, main, count = _pass(original, views, carry=False)
    reads = [base for base, _ in done.bases]
    about_patients = any(base.view.patient is not None for base in reads)
    scope_only = about_patients and is_count_only(select)
    beside = None
    if about_patients and not (scope_only and not _is_conditional(select)):
        beside = companion(done, select, carried=carry)
    if scope_only and beside is not None:
        beside = few(beside)
    unsafe = done.expressions.unsafe
    fenced = fill(main, done.bases, unsafe=unsafe)
    if beside is not None:
        fenced = fill(beside, done.bases, unsafe=unsafe) or fenced
    tables = table_reads(reads)
    return Rewritten(
        kind=Kind.CATALOG if _is_catalog(tables) else Kind.SELECT,
        sql=deparsed(main),
        read_only=True,
        tables=tables,
        hidden_columns=count,
        companion=None if beside is None else deparsed(beside),
        scope_only=scope_only,
        written_hidden=False,
        returning_added=False,
        sought=tuple(done.expressions.sought),
        limited=limited(tables),
        statement_class=statement_class(ParsedStatement(node, 0), known_names(tables)),
        barrier=fenced,
    )


def _pass(original: pb.Node, views: Views, *, carry: bool) -> tuple[Pass, pb.Node, int]:
    done = Pass(views, scene_of(views))
    main = pb.Node()
    main.CopyFrom(original)
    out = done.query(main.select_stmt, None, {}, carry=carry, top=True)
    return done, main, len(out.keys)


def is_count_only(select: pb.SelectStmt) -> bool:
    """``SELECT count(*) …`` and nothing else: a number, not a list of patients."""
    if (
        select.op != pb.SETOP_NONE
        or not select.target_list
        or select.group_clause
        or select.distinct_clause
        or select.HasField("having_clause")
        or not has_aggregate(*select.target_list)
    ):
        return False
    for node in select.target_list:
        value = node.res_target.val
        call = value.func_call
        if value.WhichOneof("node") != "func_call" or names(call.funcname)[-1] != "count":
            return False
        if not call.agg_star or call.HasField("agg_filter") or call.HasField("over"):
            return False
    return not any(list(children(sort.sort_by.node)) for sort in select.sort_clause)


def _is_conditional(select: pb.SelectStmt) -> bool:
    """Whether the count is of anything but all rows of one table: then it can ask about a few."""
    return (
        select.HasField("where_clause")
        or select.HasField("with_clause")
        or [node.WhichOneof("node") for node in select.from_clause] != ["range_var"]
    )


def table_reads(bases: Iterable[Base]) -> tuple[TableRead, ...]:
    """Each table once, with the columns referred to, in the table's order."""
    used: dict[TableName, tuple[TableView, set[str]]] = {}
    for base in bases:
        used.setdefault(base.view.table.name, (base.view, set()))[1].update(base.used)
    return tuple(
        TableRead(name, tuple(c.name for c in view.columns if c.name in columns), view)
        for name, (view, columns) in used.items()
    )


def limited(tables: Iterable[TableRead]) -> tuple[str, ...]:
    """What the person is not shown, a line per table, in words a nurse reads; no value."""
    sentences = []
    for read in tables:
        if read.table.schema in _SYSTEM:
            continue
        words: dict[str, list[str]] = {}
        for column in read.view.columns:
            if column.name in read.columns and not column.clear:
                words.setdefault(_shown_as(column), []).append(column.name)
        said = [f"{', '.join(columns)} {word}" for word, columns in words.items()]
        if read.view.row_predicate is not None:
            if read.view.row_predicate.strip().lower() == "false":
                said = ["no rows"]  # then what a column would show is of no interest
            else:
                said.insert(0, "only the rows you may see")
        if said:
            sentences.append(f"{read.table.name}: {'; '.join(said)}")
    return tuple(sentences)


def _shown_as(column: ColumnView) -> str:
    if column.level == "key":
        never = column.full_when == "false"
        return "shown as pseudonyms" if never else "shown as pseudonyms on some rows"
    if column.level == "mixed" and column.full_when == "false":
        return "never shown in full"
    return _WORDS.get(column.level, column.level)


def known_names(tables: Iterable[TableRead]) -> frozenset[str]:
    """The identifiers that the audit text may show."""
    found: set[str] = set()
    for read in tables:
        found |= {read.table.schema, read.table.name}
        found |= {column.name for column in read.view.columns}
    return frozenset(found)


def _is_catalog(tables: tuple[TableRead, ...]) -> bool:
    return bool(tables) and all(read.table.schema in _SYSTEM for read in tables)


def _housekeeping(kind: Kind, sql: str, text: str = "") -> Rewritten:
    return Rewritten(
        kind=kind,
        sql=sql,
        read_only=True,
        tables=(),
        hidden_columns=0,
        companion=None,
        scope_only=False,
        written_hidden=False,
        returning_added=False,
        sought=(),
        limited=(),
        statement_class=text,
        barrier=False,
    )


__all__ = ["Answer", "Refused", "is_count_only", "known_names", "limited", "rewrite", "table_reads"]
