"""Names of catalog objects: what is not the person's to know is NULL, however it is asked for.

A constant beside a value of type ``regclass`` takes on that type, and is then shown as the name of
whatever table has the number. So nothing that goes upstream has such a type, but inside our own
filter.
"""

import re

import pytest

from chartgate.sql.allow import PARAMETER_TYPES
from chartgate.sql.parse import split
from chartgate.sql.rewrite import rewrite
from chartgate.sql.statement import Rewritten
from chartgate.sql.views import TableName, TableView, WriteAction, WriteView


class Nobody:
    def resolve(self, schema: str | None, name: str) -> TableName:
        raise AssertionError

    def read(self, table: TableName) -> TableView:
        raise AssertionError

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        raise AssertionError


def upstream(text: str) -> str:
    (statement,) = split(text)
    found = rewrite(statement, Nobody())
    assert isinstance(found, Rewritten)
    return found.sql


def kinds(sql: str) -> list[str]:
    """The types of the filters' answers."""
    return [
        "oid" if answer == "__cg_v.o" else answer.rpartition("::")[2].removeprefix("pg_catalog.")
        for answer in re.findall(r"\(SELECT (__cg_v\.o\S*) FROM", sql)
    ]


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("SELECT 'x'::regclass", ["text"]),
        ("SELECT 'x'::regclass::text", ["text"]),
        ("SELECT coalesce(NULL::regclass, '16404')", ["text"]),
        ("SELECT CASE WHEN true THEN NULL::regclass ELSE '16404' END", ["text"]),
        ("SELECT NULL::regclass UNION SELECT '16404'", ["text"]),
        ("VALUES (NULL::regclass), ('16404')", ["text"]),
        ("SELECT (SELECT NULL::regclass)", ["text"]),
        ("SELECT ARRAY[NULL::regclass, '16404']", ["oid"]),
        ("SELECT greatest(NULL::regclass, '16404')", ["oid"]),
        ("SELECT coalesce(NULL::regclass, '16404') = '5'", ["oid"]),
        ("SELECT nullif(to_regtype('x'), '16404')", ["oid"]),
        ("SELECT lag(NULL::regclass, 1, '16404') OVER ()", ["oid"]),
        ("SELECT 'x'::regclass::oid", ["oid"]),
        ("SELECT 1 WHERE 5 = (SELECT 'x'::regclass)", ["oid"]),
        ("SELECT 1 WHERE 5 IN (SELECT 'x'::regclass UNION SELECT '16404')", ["oid"]),
        ("SELECT to_regtype('x') GROUP BY to_regtype('x')", ["text", "text"]),
    ],
)
def test_the_name_of_an_object_is_a_text_or_a_number(text: str, types: list[str]) -> None:
    assert kinds(upstream(text)) == types


def test_a_parameter_never_has_the_type_of_a_name() -> None:
    assert "$1::pg_catalog.text" in upstream("SELECT $1::regclass").replace("CAST($1 AS ", "$1::")
    assert "CAST($1 AS pg_catalog.reg" not in upstream("SELECT $1::regclass, $1")
    assert "$1::pg_catalog.reg" not in upstream("SELECT $1::regclass, $1")


def test_the_type_of_an_expression_is_a_text_or_a_number() -> None:
    assert re.search(r"pg_typeof\(1\)::(pg_catalog\.)?text", upstream("SELECT pg_typeof(1)"))
    inside = upstream("SELECT nullif(pg_typeof(1), '16404')")
    assert re.search(r"pg_typeof\(1\)::(pg_catalog\.)?oid", inside)


def test_an_expression_is_read_against_a_visible_relation_only() -> None:
    text = upstream("SELECT pg_get_expr('x', 16404)")
    assert "pg_get_expr('x', (SELECT" in text


@pytest.mark.parametrize(
    "oid", [2205, 2206, 24, 2202, 2203, 2204, 4089, 4096, 3734, 142, 2249, 16404]
)
def test_a_parameter_of_a_type_that_names_objects_is_not_admitted(oid: int) -> None:
    assert oid not in PARAMETER_TYPES


@pytest.mark.parametrize("oid", [0, 23, 25, 20, 21, 1082, 1184, 2950, 1700, 16, 1007, 1009, 705])
def test_parameters_of_plain_types_are_admitted(oid: int) -> None:
    assert oid in PARAMETER_TYPES
