"""From a map's row attribute of any kind to a person's view: read, cast, asked, or refused by name."""

from datetime import UTC, datetime
from typing import Any

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
from chartgate.datamap.read import InvalidMap
from chartgate.model.principal import Assignment, Person
from chartgate.sql.views import Column, Table, TableName

SCHEMA = parse_schema(
    """
    entity Category enum ["labs"];
    entity Purpose in [Purpose];
    entity Role in [Role];
    entity User in [Role] = { departments: Set<String>, references: Set<String> };
    entity Record = {
      category: Category, taken?: datetime, cost?: decimal, floor?: Long, held_by?: Role,
      codes: Set<String>,
    };
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
[relations.codes]
type = "Set<String>"
from = "code c"
where = "c.lab = this.id"
value = "c.code"
[tables.lab]
row_category = "labs"
[tables.lab.columns]
id = "labs"
[tables.lab.attributes]
"""
WARD, FLOOR = Role("ward", "Ward", (), "TREAT", ("TREAT",)), Role("floor", "", ("ward",), "", ())
ROLES = RoleBook({"ward": WARD, "floor": FLOOR}, {"TREAT": ()})
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def point(attributes: str, condition: str) -> DecisionPoint:
    text = (
        '@id("p") permit (principal in Role::"ward", action == Action::"view", resource) '
        f"when {{ {condition} }};"
    )
    data_map = open_map(Bundle({"clinic.toml": MAP + attributes}), SCHEMA)
    return DecisionPoint(parse_policies({"p.cedar": text}), SCHEMA, ROLES, data_map)


def lab(**columns: str) -> Table:
    shown = {"id": "bigint", **columns}
    return Table(
        TableName("public", "lab"), 1, tuple(Column(name, type_) for name, type_ in shown.items())
    )


def predicate(attributes: str, condition: str, **columns: str) -> str | None:
    made, table = point(attributes, condition), lab(**columns)
    made.check_columns({table.name: table})
    someone = Person("u", "me", "Me", True, (Assignment("ward", "x", NOON, None, ""),))
    asker = made.asker(someone, "TREAT", at=NOON)
    entitlement = made.entitlement(asker, {table.name: table}, at=NOON, secret="")
    return entitlement.read(table.name).row_predicate


def test_a_date_and_a_decimal_are_asked_as_such() -> None:
    when = predicate(
        'taken = { value = "this.taken", type = "date" }\ncost = { value = "this.cost" }',
        'resource.taken < context.now && resource.cost.lessThan(decimal("1.5"))',
        taken="date",
        cost="numeric(8,2)",
    )
    assert when is not None
    assert "AT TIME ZONE 'UTC' END) < '2026-11-22 12:00:00.000+00'::pg_catalog.timestamptz" in when
    assert "((this.cost) < 1.5000)" in when


def test_the_hierarchy_of_roles_is_known_whole() -> None:
    when = predicate('held_by = { value = "this.r" }', 'resource.held_by in Role::"ward"', r="text")
    assert when is not None
    assert "IN ('floor', 'ward')" in when


def test_a_column_of_the_wrong_type_stops_the_start() -> None:
    table = lab(taken="timestamp without time zone")
    source = Source({table.name: table}, {})
    made = point('taken = { value = "this.taken" }', "resource.taken < context.now")
    with pytest.raises(UnfitColumn, match=r"tables\.lab: the column taken is time"):
        InForce(made, source)


@pytest.mark.parametrize(
    ("attributes", "fault", "message"),
    [
        ('taken = { value = "this.t", type = "time" }', UnfitColumn, "taken: type time is none"),
        ('codes = { value = "this.t" }', InvalidMap, "unknown row attribute 'codes'"),
        ('category = { value = "this.t" }', InvalidMap, "unknown row attribute 'category'"),
        ('other = { value = "this.t" }', InvalidMap, "unknown row attribute 'other'"),
        ('floor = { value = "this.t", type = 3 }', InvalidMap, "type is missing or not text"),
    ],
)
def test_what_a_map_says_wrongly_of_an_attribute_is_refused(
    attributes: str, fault: type[Any], message: str
) -> None:
    with pytest.raises(fault) as refused:
        point(attributes, "true")
    assert "tables.lab" in str(refused.value)
    assert message in str(refused.value)
