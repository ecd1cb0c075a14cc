"""Four readings of one policy keep the same rows: SQL, SQLAlchemy, Python, and the meaning.

Random policies over everything that may be asked of a row, hostile rows in a real PostgreSQL, the
levels and the hardening of ``app.levels``: a permit is asked of each assignment alone, a forbid of
the person as a whole, and a forbid that fails excludes the row.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import event, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.app.levels import Asking, level_of
from chartgate.cedar.ast import Policy, PolicySet
from chartgate.model.disclosure import Disclosure
from chartgate.targets.admissible import NotAFilter, check_filters
from chartgate.targets.disclosure import LEVELS, PolicyIndex
from chartgate.targets.formula import Formula
from chartgate.targets.predicate import compile_predicate
from chartgate.targets.sql import to_sql
from chartgate.targets.sqlalchemy_filter import to_expression
from strategies.filter_policies import policy_lists
from strategies.filter_world import CREATE, GROUPS, ME, RECORD, World, load

pytestmark = pytest.mark.system

BATCH = 8
"""Policy sets per statement: a round trip costs more than a condition."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    server = EmbeddedPostgres(Path(tmp_path_factory.mktemp("pg")) / "server")
    server.start()
    try:
        with psycopg.connect(server.conninfo("postgres", "postgres"), autocommit=True) as made:
            # A zone far from UTC: nothing here may depend on it.
            made.execute("SET search_path = public; SET TimeZone = 'Pacific/Auckland'")
            made.execute(CREATE)
            yield load(made, seed=20_261_122, count=40)
    finally:
        server.stop()


_people = st.sampled_from([(), (GROUPS[0],), (GROUPS[2],), (GROUPS[1], GROUPS[2])])
_cases = st.lists(st.tuples(policy_lists, _people), min_size=BATCH, max_size=BATCH)


def admitted(policies: list[Policy], world: World) -> list[Policy]:
    """The policies that were not refused, each under a name of its own."""
    kept = []
    for number, policy in enumerate(policies):
        named = replace(policy, id=f"{policy.effect}-{number}")
        try:
            check_filters(PolicySet((named,), ""), world.schema, families=frozenset({"Group"}))
        except NotAFilter:
            event("refused")
            continue
        kept.append(named)
    return kept


def reached(policies: list[Policy], groups: tuple[Any, ...], world: World) -> list[Formula]:
    """The formula of each level."""
    whole = world.person(*groups)
    parts = tuple(world.person(group) for group in groups) if len(groups) > 1 else ()
    rules = PolicyIndex(policies).label("labs", world.asks(whole, parts))
    return [rules.at_least[level].formula for level in LEVELS]


def meant(policies: list[Policy], groups: tuple[Any, ...], world: World) -> list[frozenset[str]]:
    """The rows that are seen at each level or above, by the meaning of policies and levels."""
    whole = world.person(*groups)
    parts = tuple(world.person(group) for group in groups) if len(groups) > 1 else ()
    asking = Asking(PolicySet(tuple(policies), ""), whole, ME, world.context, parts)
    seen = {row.id: level_of(asking, row.attributes, "labs").level for row in world.rows}
    return [frozenset(key for key, level in seen.items() if level >= at) for at in LEVELS]


def by_sqlalchemy(formulas: list[Formula], world: World) -> list[frozenset[str]]:
    """What the SQLAlchemy expressions keep; ``WHERE`` and a selected condition are the same."""
    shown = [
        to_expression(formula, world.columns).is_(sa.true()).label(f"c{n}")
        for n, formula in enumerate(formulas)
    ]
    compiled = sa.select(RECORD.c.id, *shown).compile(
        dialect=PGDialect_psycopg(), compile_kwargs={"render_postcompile": True}
    )
    processors = compiled._bind_processors
    values = {
        name: processors[name](value) if name in processors else value
        for name, value in compiled.params.items()
    }
    rows = world.connection.execute(compiled.string.encode(), values).fetchall()
    return [frozenset(row[0] for row in rows if row[n + 1]) for n in range(len(formulas))]


@given(cases=_cases)
@settings(max_examples=30)
def test_the_rows_kept_are_the_rows_allowed(world: World, cases: list[Any]) -> None:
    sets = [(admitted(policies, world), groups) for policies, groups in cases]
    formulas = [f for policies, groups in sets for f in reached(policies, groups, world)]
    wanted = [rows for policies, groups in sets for rows in meant(policies, groups, world)]
    for rows in wanted:
        some = "none" if not rows else "all" if len(rows) == len(world.rows) else "some"
        event(f"{some} of the rows")
    ask = [compile_predicate(formula) for formula in formulas]
    assert [frozenset(r.id for r in world.rows if p(r.attributes)) for p in ask] == wanted
    assert world.found([to_sql(formula, world.row) for formula in formulas]) == wanted
    assert by_sqlalchemy(formulas, world) == wanted


def test_the_rows_are_hostile(world: World) -> None:
    """Rows without the traps would prove nothing."""
    [(found,)] = world.connection.execute(
        "SELECT count(*) FILTER (WHERE since = 'infinity') > 0 AND"
        " count(*) FILTER (WHERE price = 'NaN') > 0 AND"
        " count(*) FILTER (WHERE code = upper(code::text)::citext"
        "   AND code::text <> upper(code::text)) > 0 AND"
        " count(*) FILTER (WHERE name IS NULL) > 0 FROM record"
    ).fetchall()
    assert found is True
    assert len(LEVELS) == len(set(LEVELS) - {Disclosure.WITHHELD})
