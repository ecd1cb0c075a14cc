"""A column that does not mean what its attribute says is refused at load, by map and table."""

import pytest

from chartgate.app.attribute_columns import UnfitColumn, attribute_sql, check_columns, member_sql
from chartgate.datamap.model import ColumnLabel, DataMap, MappedTable, PatientTable
from chartgate.sql.views import Column, Table, TableName

KINDS = {
    "name": "String", "size": "Long", "ok": "Bool", "since": "datetime", "price": "decimal",
    "ward": "Ward",
}  # fmt: skip


def check(attribute: str, type_sql: str, sql: str = "this.c", **types: str) -> None:
    table = MappedTable("lab", "labs", {}, attributes={attribute: sql}, attribute_types=types)
    data_map = DataMap("clinic", "", "public", PatientTable("p", "k", "k"), {}, {}, (), "")
    live = Table(TableName("public", "lab"), 1, (Column("c", type_sql), Column("C d", "json")))
    check_columns(table, live, data_map, KINDS)


@pytest.mark.parametrize(
    ("attribute", "type_sql"),
    [
        ("name", "text"), ("name", "character varying(10)"), ("name", "character(3)"),
        ("name", "public.citext"), ("ward", "uuid"), ("ward", "bigint"), ("size", "smallint"),
        ("size", "bigint"), ("ok", "boolean"), ("since", "timestamp with time zone"),
        ("since", "timestamp(3) with time zone"), ("price", "numeric(10,2)"),
        ("price", "numeric(18,4)"), ("price", "numeric(5)"),
    ],
)  # fmt: skip
def test_a_column_of_a_type_that_means_it_is_taken(attribute: str, type_sql: str) -> None:
    check(attribute, type_sql)


@pytest.mark.parametrize(
    ("attribute", "type_sql"),
    [
        ("name", "integer"), ("name", "jsonb"), ("name", "public.mood"), ("size", "text"),
        ("size", "numeric(10,0)"), ("size", "double precision"), ("ok", "integer"), ("ok", "text"),
        ("since", "timestamp without time zone"), ("since", "date"), ("since", "text"),
        ("price", "numeric"), ("price", "numeric(18,5)"), ("price", "numeric(19,4)"),
        ("price", "double precision"), ("price", "money"), ("ward", "boolean"),
        ("name", "text[]"),
    ],
)  # fmt: skip
def test_a_column_of_another_type_is_refused_by_name(attribute: str, type_sql: str) -> None:
    with pytest.raises(UnfitColumn) as refused:
        check(attribute, type_sql)
    assert str(refused.value).startswith(f"data map clinic: tables.lab: the column c is {type_sql}")
    assert f"the row attribute {attribute} " in str(refused.value)


def test_a_date_is_taken_where_the_map_says_so() -> None:
    check("since", "date", since="date")
    with pytest.raises(UnfitColumn):
        check("since", "timestamp with time zone", since="date")


def test_a_quoted_column_is_a_column_and_an_expression_is_not() -> None:
    with pytest.raises(UnfitColumn, match="the column C d is json"):
        check("name", "text", sql='this."C d"')
    check("size", "text", sql="length(this.c)")
    check("size", "text", sql="this.absent")


@pytest.mark.parametrize(
    ("sql", "declared", "kind", "read"),
    [
        ("this.c", None, "Long", "this.c"),
        ("length(this.c)", None, "Long", "(length(this.c))::pg_catalog.int8"),
        ("this.c > 1", None, "Bool", "(this.c > 1)::pg_catalog.bool"),
        ("this.a + this.b", None, "decimal", "(this.a + this.b)::pg_catalog.numeric"),
        ("lower(this.c)", None, "String", "lower(this.c)"),
        ("(SELECT 1)", None, "Ward", "(SELECT 1)"),
    ],
)
def test_an_expression_is_cast_to_what_it_must_be(
    sql: str, declared: str | None, kind: str, read: str
) -> None:
    assert attribute_sql(sql, declared, kind) == read


def test_a_date_is_read_as_the_instant_it_begins_in_utc() -> None:
    read = attribute_sql("this.born", "date", "datetime")
    assert "(this.born)::pg_catalog.timestamp AT TIME ZONE 'UTC'" in read


@pytest.mark.parametrize(("declared", "range_"), [(None, "tstzrange"), ("date", "daterange")])
def test_an_instant_is_never_cast_since_who_asks_sets_the_time_zone(
    declared: str | None, range_: str
) -> None:
    read = attribute_sql("f(1)", declared, "datetime")
    only = f"pg_catalog.elem_contained_by_range((f(1)), '(,)'::pg_catalog.{range_})"
    assert f"CASE WHEN {only} THEN (f(1)) END" in read
    assert "(f(1))::" not in read


@pytest.mark.parametrize(
    ("declared", "kind"),
    [("date", "Long"), ("timestamp", "datetime"), ("float8", "decimal"), ("x", "Ward")],
)
def test_an_sql_type_that_the_kind_cannot_have_is_refused(declared: str, kind: str) -> None:
    with pytest.raises(UnfitColumn, match=f"type {declared} is none that a {kind} can have"):
        attribute_sql("this.c", declared, kind)


def test_members_of_a_set_are_cast_as_well() -> None:
    assert member_sql("m.n", "Long") == "(m.n)::pg_catalog.int8"
    assert member_sql("m.n", "User") == "m.n"


def test_what_is_shown_of_an_instant_must_not_follow_the_sessions_time_zone() -> None:
    def check_form(form: str, type_sql: str) -> None:
        columns = {"c": ColumnLabel("labs", summary=form)}
        table = MappedTable("lab", "labs", columns)
        data_map = DataMap("clinic", "", "public", PatientTable("p", "k", "k"), {}, {}, (), "")
        live = Table(TableName("public", "lab"), 1, (Column("c", type_sql),))
        check_columns(table, live, data_map, KINDS)

    check_form("date_trunc('day', this.c)", "timestamp without time zone")
    check_form("date_trunc('day', this.c, 'UTC')", "timestamp with time zone")
    with pytest.raises(UnfitColumn, match=r"tables\.lab\.columns\.c: .* time zone"):
        check_form("date_trunc('day', this.c)", "timestamp with time zone")
