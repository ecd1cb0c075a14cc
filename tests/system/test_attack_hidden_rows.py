"""Attacks on rows that policy hides: with a guess that is right or wrong the answer is the same."""

from typing import Any

import psycopg
import pytest

pytestmark = pytest.mark.system


def answer(connection: Any, query: str, *values: object) -> object:
    """The rows, or the SQLSTATE: what the attacker sees."""
    try:
        return connection.execute(query, values).fetchall()
    except psycopg.Error as exc:
        return exc.sqlstate


# One bit a query: something raises on the row that the first condition finds.
RAISING = [
    "coalesce(deceased_on, now() - interval '9999 years') > '2020-01-01'",
    "coalesce(deceased_on, now() - interval '999 years') > '2020-01-01'",
    "deceased_on IS NULL AND registered_on > current_date - interval '9999 years'",
    "1 / (length(city) - length(city)) = 1",
    "substring(city, 1, -1) = 'x'",
    "city::integer = 1",
    "(SELECT 1 UNION ALL SELECT 1) = length(city)",
    "CASE WHEN sex = 'F' THEN '1'::text ELSE city END::integer = 1",
    "EXISTS (SELECT 1 FROM regexp_match(city, '(') r)",
    "city LIKE city || E'\\\\'",
    "date_trunc(city, registered_on) IS NULL",
    "(SELECT json_object_agg(NULL::text, 1) FROM department) IS NULL",
    "(SELECT sum(1e308::float8) FROM department) IS NULL",
    "(SELECT percentile_cont(2.0) WITHIN GROUP (ORDER BY floor) FROM department) IS NULL",
    "EXISTS (SELECT 1 FROM department OFFSET -1)",
    "(SELECT floor FROM department LIMIT -1) = length(mrn)",
    "patient_id IN (SELECT floor FROM department LIMIT '-1')",
    "(SELECT ntile(0) OVER () FROM department LIMIT 1) IS NULL",
    "(SELECT count(*) OVER (ROWS -1 PRECEDING) FROM department LIMIT 1) IS NULL",
    "(SELECT count(*) OVER w FROM department WINDOW w AS (ROWS -1 PRECEDING) LIMIT 1) IS NULL",
    "EXISTS (SELECT 1 FROM department HAVING sum(1e308::float8) IS NULL)",
    "EXISTS (SELECT 1 FROM (SELECT sum(1e308::float8) AS s FROM department) d WHERE s IS NULL)",
]


@pytest.mark.parametrize("name", ["mwelby", "nadams", "rpatel", "ddba", "contractor"])
@pytest.mark.parametrize("raising", RAISING)
def test_nothing_raises_on_a_row_that_is_not_shown(gate: Any, name: str, raising: str) -> None:
    with gate.connect("mwelby") as physician, gate.admin() as admin:
        shown = [row[0] for row in physician.execute("SELECT patient_id FROM patient")]
        hidden = admin.execute(
            "SELECT last_name, first_name, mrn FROM patient WHERE patient_id <> ALL (%s)"
            " AND deceased_on IS NULL AND patient_id NOT IN (SELECT patient_id FROM encounter"
            " WHERE department = 'cardiology') ORDER BY patient_id LIMIT 1",
            (shown,),
        ).fetchone()
    query = f"SELECT 1 FROM patient WHERE last_name = %s AND first_name = %s AND {raising}"
    with gate.connect(name) as person:
        right = answer(person, query, hidden[0], hidden[1])
        wrong = answer(person, query, "Nobody", "Known")
        assert right == wrong
        by_function = "SELECT 1 FROM patient p, LATERAL regexp_match(p.city, '(') r WHERE mrn = %s"
        assert answer(person, by_function, hidden[2]) == answer(person, by_function, "MRN-0")
