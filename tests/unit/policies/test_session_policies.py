"""What only an application can say may be asked for by every policy, and every reading copes.

At the gate nobody says it: a policy that wants it grants nothing there, one that bars because of it
bars nothing, and both say so in the text.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.engine import Engine
from chartgate.app.entitlement import DecisionPoint
from chartgate.app.invariants import read_invariants
from chartgate.app.levels import Asking, level_of
from chartgate.app.lint import Severity, lint
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.prove import prove, prover_of
from chartgate.app.rolebook import person_entity
from chartgate.app.scenario_context import read_circumstances
from chartgate.cedar.entities import Entity
from chartgate.cedar.values import CedarSet, DateTime, RecordValue, Value
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import Assignment, EntityUid, Person

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ADDED = """
@id("genetic_counsellor_from_here")
@clause("164.312(d)")
@owner("Privacy Officer")
@review("2027-06-30")
permit (principal in Role::"lab_tech", action == Action::"view", resource)
when { context.purpose in Purpose::"TREAT" }
when { resource.category == Category::"notes" }
when { context has acr && context.acr >= 3 }
when { context has device && context.device == Device::"managed" }
when { context has ip && context.ip.isInRange(ip("10.0.0.0/8")) }
when { context has session && context.session != "" }
when {
  context has authenticated_at &&
  context.now.durationSince(context.authenticated_at) < duration("15m")
};

@id("no_imaging_on_personal_devices")
@clause("164.310(b)")
@owner("Security Officer")
@review("2027-06-30")
forbid (principal, action in [Action::"view", Action::"view_summary"], resource)
when { resource.category == Category::"imaging" }
when { context has device && context.device == Device::"personal" };
"""
GOOD = {
    "acr": 3,
    "authenticated_at": datetime(2026, 11, 22, 11, 50, tzinfo=UTC),
    "ip": "10.9.8.7",
    "device": "managed",
    "session": "s-1",
}
NOBODY_SAYS: dict[str, object] = {}


@pytest.fixture(scope="module")
def version(project_root) -> PolicyVersion:
    files = load_policy_version(project_root / "policies").bundle.files
    return open_bundle(Bundle({**files, "roles/session.cedar": ADDED}))


def seen(
    version: PolicyVersion, role: str, category: str, said: Mapping[str, object]
) -> Disclosure:
    assignment = Assignment(role, "cardiology", datetime(2020, 1, 1, tzinfo=UTC), None)
    person = Person("u", "u", "u", active=True, assignments=(assignment,))
    store = version.roles.entities().with_(person_entity(person, (assignment,)))
    context: dict[str, Value] = {
        "purpose": EntityUid("Purpose", "TREAT"),
        "now": DateTime(int(NOW.timestamp()) * 1000),
        "source": "hospital",
        **read_circumstances("test", said),
    }
    asking = Asking(version.policies, store, EntityUid("User", "u"), RecordValue(context), (store,))
    mine = CedarSet.of([EntityUid("Department", "cardiology")])
    nothing = CedarSet.of(())
    row = {"departments": mine, "queues": mine, "care_team": nothing, "age_bands": nothing}
    return level_of(asking, RecordValue(row), category).level


def test_a_permit_that_wants_a_strong_session_holds_only_when_all_of_it_is_said(version) -> None:
    assert seen(version, "lab_tech", "notes", GOOD) is Disclosure.FULL
    assert seen(version, "lab_tech", "notes", NOBODY_SAYS) is Disclosure.WITHHELD
    for name, other in {
        "acr": 2,
        "device": "personal",
        "ip": "203.0.113.9",
        "session": "",
        "authenticated_at": datetime(2026, 11, 22, 11, 44, tzinfo=UTC),
    }.items():
        assert seen(version, "lab_tech", "notes", {**GOOD, name: other}) is Disclosure.WITHHELD
        without = {key: value for key, value in GOOD.items() if key != name}
        assert seen(version, "lab_tech", "notes", without) is Disclosure.WITHHELD


def test_a_forbid_bars_only_where_it_is_said_what_it_bars(version) -> None:
    assert seen(version, "physician", "imaging", NOBODY_SAYS) is Disclosure.FULL
    assert seen(version, "physician", "imaging", {"device": "personal"}) is Disclosure.MASKED
    assert seen(version, "physician", "imaging", {"device": "managed"}) is Disclosure.FULL


def test_such_policies_can_be_filters_and_bind_no_decision_of_the_gate_to_the_clock(
    version, project_root
) -> None:
    data_map = load_data_map(project_root / "maps" / "hospital.toml", version.schema)
    point = DecisionPoint(version.policies, version.schema, version.roles, data_map)
    assignment = Assignment("lab_tech", "laboratory", datetime(2020, 1, 1, tzinfo=UTC), None)
    person = Person("u", "u", "u", active=True, assignments=(assignment,))
    asker = point.asker(person, "TREAT", at=NOW)
    assert point.valid_until(asker, at=NOW) is None


def test_the_linter_finds_nothing_wrong_with_them(version) -> None:
    assert [f for f in lint(version, today=NOW.date()) if f.severity is Severity.ERROR] == []


@pytest.mark.parametrize(("said", "allowed"), [(GOOD, True), (NOBODY_SAYS, False)])
def test_compiled_they_answer_the_same(version, said: Mapping[str, object], allowed: bool) -> None:
    assignment = Assignment("lab_tech", "laboratory", datetime(2020, 1, 1, tzinfo=UTC), None)
    person = Person("u", "u", "u", active=True, assignments=(assignment,))
    engine = Engine(version, (person_entity(person, (assignment,)),))
    context: dict[str, Value] = {
        "purpose": EntityUid("Purpose", "TREAT"),
        "now": DateTime(int(NOW.timestamp()) * 1000),
        "source": "hospital",
        **read_circumstances("test", said),
    }
    record = EntityUid("Record", "asked")
    nothing = CedarSet.of(())
    row = dict.fromkeys(("departments", "queues", "care_team", "age_bands"), nothing)
    own = Entity(record, {**row, "category": EntityUid("Category", "notes")})
    view = EntityUid("Action", "view")
    assert engine.decide(EntityUid("User", "u"), view, record, context, own).allowed is allowed


def test_a_claim_about_a_session_is_proved_or_refuted_with_one(version) -> None:
    forms = [
        {
            "id": "strong",
            "words": "w",
            "clause": "164.312(d)",
            "claim": "never",
            "roles": ["lab_tech"],
            "actions": ["view"],
            "categories": ["notes"],
            "unless": "context has acr && context.acr >= 3 && context has ip && "
            'context.ip.isInRange(ip("10.0.0.0/8"))',
        },
        {
            "id": "never",
            "words": "w",
            "clause": "164.312(d)",
            "claim": "never",
            "roles": ["lab_tech"],
            "actions": ["view"],
            "categories": ["notes"],
        },
    ]
    invariants = read_invariants("test", {"invariant": forms}, version)
    prover = prover_of(version, invariants, now=NOW, timeout=60.0)
    strong, never = prove(prover, invariants, clock=lambda: 0.0)
    assert strong.verdict == "proved"
    assert never.verdict == "violated"
    assert 'device = "managed"' in never.why
