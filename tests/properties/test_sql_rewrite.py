"""Whatever text comes in, out comes a statement or a refusal: never a crash, never the table itself.

A statement that is let through names a base table only inside a derived table of ours, and what
is sent is stable: rewriting reads back as it was written.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import postgast
from hypothesis import given
from hypothesis import strategies as st
from postgast import pg_query_pb2 as pb

from chartgate.errors import ChartgateError, Refused
from chartgate.sql.parse import split
from chartgate.sql.redact import statement_class
from chartgate.sql.rewrite import rewrite
from chartgate.sql.statement import Rewritten
from chartgate.sql.tree import walk
from chartgate.sql.views import (
    Column,
    ColumnView,
    Table,
    TableName,
    TableView,
    WriteAction,
    WriteView,
)

SECRET = "Zyxwv"

WORDS = st.sampled_from(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "t",
        "u",
        "t.a",
        "u.b",
        "a",
        "b",
        "*",
        ",",
        "(",
        ")",
        "AND",
        "OR",
        "NOT",
        "=",
        "<",
        "+",
        "||",
        "1",
        "$1",
        "'Zyxwv'",
        '"Zyxwv"',
        "AS",
        "x",
        "JOIN",
        "ON",
        "LEFT",
        "NATURAL",
        "USING",
        "GROUP",
        "BY",
        "ORDER",
        "LIMIT",
        "UNION",
        "EXCEPT",
        "DISTINCT",
        "WITH",
        "RECURSIVE",
        "LATERAL",
        "VALUES",
        "count(*)",
        "max(a)",
        "lower(b)",
        "EXISTS",
        "IN",
        "ANY",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "NULL",
        "IS",
        "now()",
        "::",
        "int",
        "text",
        ".",
        "[",
        "]",
        "ARRAY",
        "OVER",
        "ROW",
        "x.a",
        "TABLE",
        ";",
        "SET",
        "RESET",
        "SHOW",
        "BEGIN",
        "INSERT",
        "INTO",
        "DELETE",
        "UPDATE",
        "RETURNING",
        "ctid",
        "t.ctid",
        "(t).a",
    ]
)
SHAPES = st.sampled_from(
    [
        "SELECT {e}, {e} FROM t WHERE {e}",
        "SELECT {e} FROM t, u WHERE t.a = u.a AND {e} ORDER BY {e}",
        "SELECT t.* FROM t LEFT JOIN u ON {e} GROUP BY {e}",
        "WITH t AS (SELECT {e} AS a, b FROM t) SELECT {e} FROM t",
        "SELECT (SELECT {e} FROM u WHERE {e}) FROM t",
        "SELECT * FROM t, LATERAL (SELECT {e} AS z) s WHERE {e}",
        "SELECT a FROM t UNION SELECT {e} FROM u",
        "SELECT {e} FROM (SELECT * FROM t) AS t NATURAL JOIN u",
    ]
)
EXPRESSIONS = st.recursive(
    st.sampled_from(
        [
            "t.a",
            "u.b",
            "a",
            "t.b",
            "1",
            "$1",
            f"'{SECRET}'",
            "NULL",
            "t",
            "t.*",
            "count(*)",
            "now()",
        ]
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["=", "<", "+", "||", "AND", "IN", "LIKE"]), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} ({parts[2]}))"
        ),
        inner.map(lambda e: f"({e})::text"),
        inner.map(lambda e: f"coalesce({e}, 1)"),
        inner.map(lambda e: f"row_to_json({e})"),
        inner.map(lambda e: f"sum({e})"),
        inner.map(lambda e: f"(SELECT {e} FROM u)"),
        inner.map(lambda e: f"EXISTS (SELECT FROM t WHERE {e})"),
    ),
    max_leaves=5,
)


class Person:
    def resolve(self, schema: str | None, name: str) -> TableName:
        if name not in ("t", "u"):
            raise Refused("not in the data map")
        return TableName("raw", name)

    def read(self, table: TableName) -> TableView:
        columns = ("a", "b")
        return TableView(
            Table(table, 1, tuple(Column(c, "text") for c in columns)),
            "this.a > 'policy'",
            tuple(ColumnView(c, f"this.{c}", "full", clear=True, full_when=None) for c in columns),
            "this.a" if table.name == "t" else None,
        )

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        raise Refused("reads only")


def outcome(call: Callable[[], Any]) -> Any:
    """What it gives, or the message of its refusal; anything else that is raised is a bug."""
    try:
        return call()
    except ChartgateError as exc:
        return str(exc)


def check(text: str) -> None:
    statements = outcome(lambda: split(text))
    if isinstance(statements, str):
        assert SECRET not in statements
        return
    for statement in statements:
        assert SECRET not in statement_class(statement)
        done = outcome(partial(rewrite, statement, Person()))
        if isinstance(done, str):
            assert SECRET not in done
        if not isinstance(done, Rewritten) or not done.sql:
            continue
        for sql in filter(None, (done.sql, done.companion)):
            assert postgast.deparse(postgast.parse(sql)) == sql
            for found in walk(postgast.parse(sql)):
                if isinstance(found, pb.SelectStmt):
                    raw = [
                        item.range_var
                        for item in found.from_clause
                        if item.WhichOneof("node") == "range_var"
                        and item.range_var.schemaname == "raw"
                    ]
                    for table in raw:
                        assert table.alias.aliasname == "this"
                        assert found.HasField("where_clause")


@given(st.lists(WORDS, max_size=20).map(" ".join))
def test_no_words_of_sql_get_past_the_rewriter(text: str) -> None:
    check(text)


@given(st.text(max_size=60))
def test_no_text_at_all_gets_past_the_rewriter(text: str) -> None:
    check(text)


@given(SHAPES, st.lists(EXPRESSIONS, min_size=3, max_size=3))
def test_no_expression_gets_past_the_rewriter(shape: str, parts: list[str]) -> None:
    for part in parts:
        shape = shape.replace("{e}", part, 1)
    check(shape.replace("{e}", "1"))
