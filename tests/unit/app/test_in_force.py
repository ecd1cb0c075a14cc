"""What decides is replaced as one, and only by what fits its source."""

from dataclasses import FrozenInstanceError

import pytest

from chartgate.app.attribute_columns import UnfitColumn
from chartgate.app.entitlement import DecisionPoint
from chartgate.app.in_force import InForce
from chartgate.app.map_bundle import open_map
from chartgate.app.policy_bundle import Bundle
from chartgate.app.rolebook import Role, RoleBook
from chartgate.app.session_views import Source
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.validate import parse_schema
from chartgate.sql.views import Column, Table, TableName

SCHEMA = parse_schema(
    """
    entity Category enum ["labs"];
    entity Purpose in [Purpose];
    entity Role in [Role];
    entity User in [Role];
    entity Record = { category: Category, taken?: datetime };
    action view, view_summary, view_masked appliesTo {
      principal: [User], resource: [Record],
      context: { purpose: Purpose, now: datetime, source: String } };
    """,
    "s.cedarschema",
)
MAP = """
source = "clinic"
patient = { table = "lab", key = "id", identifier = "id" }
code_sets = {}
[tables.lab]
row_category = "labs"
[tables.lab.columns]
id = "labs"
taken = "labs"
[tables.lab.attributes]
taken = { value = "this.taken" }
"""
ROLES = RoleBook({"nurse": Role("nurse", "Nurse", (), "TREAT", ("TREAT",))}, {"TREAT": ()})


def point(when: str) -> DecisionPoint:
    text = (
        '@id("p") permit (principal in Role::"nurse", action == Action::"view", resource) '
        f"when {{ {when} }};"
    )
    data_map = open_map(Bundle({"clinic.toml": MAP}), SCHEMA)
    return DecisionPoint(parse_policies({"p.cedar": text}), SCHEMA, ROLES, data_map)


def source(taken: str) -> Source:
    lab = Table(TableName("public", "lab"), 1, (Column("id", "bigint"), Column("taken", taken)))
    return Source({lab.name: lab}, {})


FIRST, SECOND = point("true"), point("false")
THERE = source("timestamp with time zone")


def test_at_the_start_what_was_given_decides() -> None:
    holder = InForce(FIRST, THERE)
    assert (holder.point, holder.current.source, holder.replaced) == (FIRST, THERE, 0)


def test_point_and_source_are_replaced_together() -> None:
    holder, later = InForce(FIRST, THERE), source("timestamp with time zone")
    holder.replace(SECOND, later)
    assert (holder.current.point, holder.current.source) == (SECOND, later)
    assert (holder.point, holder.replaced) == (SECOND, 1)


def test_whoever_took_what_decides_keeps_it_whole_over_a_replacement() -> None:
    """A statement is decided by one version: it takes ``current`` once."""
    holder = InForce(FIRST, THERE)
    taken = holder.current
    holder.replace(SECOND, source("timestamp with time zone"))
    assert (taken.point, taken.source) == (FIRST, THERE)
    with pytest.raises(FrozenInstanceError):
        taken.point = SECOND  # type: ignore[misc]


def test_every_replacement_counts_and_going_back_is_one() -> None:
    holder = InForce(FIRST, THERE)
    for replaced, one in enumerate((SECOND, FIRST, FIRST), 1):
        holder.replace(one, THERE)
        assert (holder.point, holder.replaced) == (one, replaced)


def test_nothing_starts_on_a_column_that_is_not_what_the_map_takes_it_for() -> None:
    with pytest.raises(UnfitColumn, match=r"tables\.lab"):
        InForce(FIRST, source("timestamp without time zone"))
