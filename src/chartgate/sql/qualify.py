"""SQL of the data map, read once when it is loaded: one expression each, relations written out.

The source's search path holds none, so that relations named plainly get their schema. The text is
parsed and deparsed, never edited: what a map says is read by the same grammar as what people say,
and a piece that is not whole by itself (an unbalanced bracket, a comment, a second expression)
cannot change the meaning of the text it is put into.

Whoever asks sets the time zone of her session, and what day it is depends on it: a map's
``current_date`` is therefore the day in UTC, and the other clocks without a zone are refused.
"""

from collections.abc import Container
from functools import lru_cache

import postgast
from postgast import pg_query_pb2 as pb

from chartgate.errors import Misconfigured
from chartgate.sql.tree import walk

_SELECT = "SELECT "
_FROM = "SELECT 1 FROM "


class InvalidExpression(Misconfigured):
    """A map's SQL is not one expression of the grammar."""

    code = "invalid_expression"


@lru_cache(maxsize=4096)
def qualified(expression: str, schema: str) -> str:
    """The expression with every plain relation name in ``schema``."""
    return _written_out(_expression(expression), schema).removeprefix(_SELECT)


def qualified_source(relations: str, schema: str) -> str:
    """The same for what may follow FROM."""
    parsed, select = _select(_FROM + relations)
    _only(select, "target_list", "from_clause")
    return _written_out(parsed, schema).removeprefix(_FROM)


@lru_cache(maxsize=4096)
def column_names(expression: str) -> frozenset[str]:
    """Every name in the expression that could mean a column; ``*`` for all of them."""
    return frozenset(
        message.fields[-1].string.sval if message.fields[-1].HasField("string") else "*"
        for message in walk(_expression(expression))
        if isinstance(message, pb.ColumnRef)
    )


def _expression(text: str) -> pb.ParseResult:
    parsed, select = _select(_SELECT + text)
    _only(select, "target_list")
    if len(select.target_list) != 1 or select.target_list[0].res_target.name:
        raise InvalidExpression("SQL of the data map is more than one expression")
    return parsed


def _select(text: str) -> tuple[pb.ParseResult, pb.SelectStmt]:
    try:
        parsed = postgast.parse(text)
    except postgast.PgQueryError as exc:
        raise InvalidExpression(f"SQL of the data map is not an expression: {exc}") from exc
    if len(parsed.stmts) != 1 or not parsed.stmts[0].stmt.HasField("select_stmt"):
        raise InvalidExpression("SQL of the data map is more than one expression")
    for message in walk(parsed):
        if isinstance(message, pb.WithClause | pb.ParamRef):
            # A WITH would name relations of its own; a parameter is the asking person's.
            raise InvalidExpression("SQL of the data map holds a WITH or a parameter")
    _in_utc(parsed)
    return parsed, parsed.stmts[0].stmt.select_stmt


_TODAY = postgast.parse("SELECT (pg_catalog.now() AT TIME ZONE 'UTC')::pg_catalog.date")
_ZONED = frozenset(
    {
        pb.SVFOP_CURRENT_TIME, pb.SVFOP_CURRENT_TIME_N, pb.SVFOP_LOCALTIME, pb.SVFOP_LOCALTIME_N,
        pb.SVFOP_LOCALTIMESTAMP, pb.SVFOP_LOCALTIMESTAMP_N,
    }
)  # fmt: skip


def _in_utc(parsed: pb.ParseResult) -> None:
    today = _TODAY.stmts[0].stmt.select_stmt.target_list[0].res_target.val
    for message in list(walk(parsed)):
        if not isinstance(message, pb.Node) or not message.HasField("sqlvalue_function"):
            continue
        if message.sqlvalue_function.op == pb.SVFOP_CURRENT_DATE:
            message.CopyFrom(today)
        elif message.sqlvalue_function.op in _ZONED:
            raise InvalidExpression(
                "SQL of the data map asks the clock of the session's time zone, which whoever "
                "asks may set: write now() AT TIME ZONE and the zone"
            )


_CUTTING = frozenset(
    {"date_part", "extract", "to_char", "age", "date", "text", "timestamp", "time"}
)
_CASTS = frozenset(
    {"date", "time", "timestamp", "text", "varchar", "bpchar", "character varying", "timetz"}
)


def follows_time_zone(expression: str, instants: Container[str]) -> bool:
    """Whether the expression cuts or writes out one of these columns (``timestamptz``) as the
    session's time zone has it: with zone after zone, what was cut off could be found again."""
    for message in walk(_expression(expression)):
        if isinstance(message, pb.FuncCall):
            name = message.funcname[-1].string.sval
            if name not in _CUTTING and (name != "date_trunc" or len(message.args) != 2):
                continue
            direct = list(message.args)
        elif isinstance(message, pb.TypeCast):
            if message.type_name.names[-1].string.sval not in _CASTS:
                continue
            direct = [message.arg]
        else:
            continue
        if any(_is_column(part, instants) for part in direct):
            return True
    return False


def _is_column(node: pb.Node, columns: Container[str]) -> bool:
    if not node.HasField("column_ref"):
        return False
    last = node.column_ref.fields[-1]
    return last.HasField("string") and last.string.sval in columns


def _only(select: pb.SelectStmt, *fields: str) -> None:
    """Nothing but these parts: what would follow them is not part of an expression."""
    bare, rest = pb.SelectStmt(), pb.SelectStmt()
    bare.CopyFrom(postgast.parse("SELECT 1").stmts[0].stmt.select_stmt)
    rest.CopyFrom(select)
    for field in {"target_list", *fields}:
        rest.ClearField(field)
        bare.ClearField(field)
    if rest != bare:
        raise InvalidExpression("SQL of the data map is more than one expression")


def _written_out(parsed: pb.ParseResult, schema: str) -> str:
    for message in walk(parsed):
        if isinstance(message, pb.RangeVar) and not message.schemaname:
            message.schemaname = schema
    return postgast.deparse(parsed)
