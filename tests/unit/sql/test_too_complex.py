"""What is short to write and long to rewrite is refused: the gate has other people to serve."""

import time

import pytest

from chartgate.sql.parse import MAX_RELATIONS, MAX_STARS, TooComplex, split
from chartgate.sql.safe import is_safe
from chartgate.sql.tree import expression


def many(what: str, count: int, between: str = ", ") -> str:
    return between.join(what.format(n=n) for n in range(count))


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT 1 FROM {many('person p{n}', 65)}",
        many("SELECT 1 FROM person a, person b", 33, "; "),
        f"SELECT {many('*', 200)} FROM person",
        f"SELECT {many('EXISTS (TABLE person)', 65)}",
        f"SELECT {many(chr(39) + 'x' + chr(39) + '::regclass', 65)}",
        f"SELECT {many('pg_table_is_visible({n})', 65)}",
        f"SELECT {many('col_description({n}, 1)', 65)}",
        f"SELECT {many('format_type({n}, 1)', 65)}",
    ],
)
def test_what_is_short_to_write_and_long_to_rewrite_is_refused(text: str) -> None:
    with pytest.raises(TooComplex):
        split(text)


def test_as_many_tables_as_a_large_report_has_are_let_through() -> None:
    assert split(f"SELECT 1 FROM {many('person p{n}', MAX_RELATIONS)}")
    assert split(f"SELECT {many('p{n}.*', MAX_STARS)} FROM {many('person p{n}', MAX_STARS)}")


@pytest.mark.parametrize(
    "nested",
    [
        "date_trunc('day', {})",
        "max({})",
        "coalesce({}, now())",
        "extract(epoch FROM {})",
        "sum({})",
    ],
)
def test_judging_a_nested_expression_takes_no_more_than_its_size(nested: str) -> None:
    text = "started_at"
    for _ in range(28):
        text = nested.format(text)
    start = time.process_time()
    is_safe(expression(text), lambda _: "timestamp with time zone")
    assert time.process_time() - start < 1
