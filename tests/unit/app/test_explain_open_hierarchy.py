"""Who-can where the record itself may name a role or a purpose, and what it names is left open."""

from datetime import UTC, datetime

from chartgate.app.explain_question import Question
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.who_can import Holding, who_can
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.predicate import compile_predicate

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SCHEMA = """
entity Category enum ["labs"];
entity Purpose in [Purpose];
entity Role in [Role];
entity Department;
entity User in [Role] = { departments: Set<Department> };
entity Record = { category: Category, least?: Role, closed_to?: Purpose };
type Asked = { purpose: Purpose, now: datetime, source: String };
action view, view_summary, view_masked appliesTo {
  principal: [User], resource: [Record], context: Asked };
"""
ROLES = """
[roles.staff]
title = "Staff"
parents = []
default_purpose = "TREAT"
purposes = ["TREAT"]
[roles.nurse]
title = "Nurse"
parents = ["staff"]
default_purpose = "TREAT"
purposes = ["TREAT"]
"""


def version(policies: str) -> PolicyVersion:
    return open_bundle(
        Bundle(
            {
                "schema.cedarschema": SCHEMA,
                "roles.toml": ROLES,
                "purposes.toml": 'TREAT = []\nURGENT = ["TREAT"]\n',
                "all.cedar": policies,
            }
        )
    )


def holdings(policies: str) -> tuple[Holding, ...]:
    held = (Assignment("nurse", None, datetime(2026, 1, 1, tzinfo=UTC), None, None, None),)
    ann = Person("ann", "ann", "Ann", True, held)
    (holder,) = who_can(version(policies), [ann], Question("view", ("labs",), "", NOW), {})
    return holder.holdings


def test_an_open_role_is_told_with_every_role_that_is_in_it() -> None:
    (one,) = holdings(
        '@id("it") permit (principal, action == Action::"view", resource) '
        'when { resource has least && resource.least in Role::"staff" };'
    )
    holds = compile_predicate(one.when)
    assert holds({"least": EntityUid("Role", "nurse")})
    assert holds({"least": EntityUid("Role", "staff")})
    assert not holds({"least": EntityUid("Role", "ghost")})


def test_a_purpose_that_an_open_attribute_may_name_is_asked_by_itself() -> None:
    found = holdings(
        '@id("it") permit (principal, action == Action::"view", resource) '
        "unless { resource has closed_to && context.purpose in resource.closed_to };"
    )
    closed = {"closed_to": EntityUid("Purpose", "URGENT")}
    open_to = {p for h in found if compile_predicate(h.when)(closed) for p in h.purposes}
    assert open_to == {"TREAT"}
