"""What stops a version before anybody is asked about it, stage by stage, on a clinic of two roles."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chartgate.app.map_bundle import open_map
from chartgate.app.policy_bundle import Bundle, open_bundle
from chartgate.app.policy_stages import (
    MAP_STAGES,
    POLICY_STAGES,
    Candidate,
    Evidence,
    examine,
    stages_of,
)
from chartgate.app.replay import Apart, Flip
from chartgate.app.replay_report import FlipRow, ReplayReport
from chartgate.app.session_views import Source
from chartgate.errors import Refused
from chartgate.govern.policy_version import MAP_TRANSITIONS, TRANSITIONS, State, Step
from chartgate.model.principal import Assignment, Person
from chartgate.sql.views import Column, Table, TableName

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SCHEMA = """
entity Category enum ["labs", "notes"];
entity Purpose in [Purpose];
entity Role in [Role];
entity Department;
entity Patient;
entity User in [Role] = {
  departments: Set<Department>, references: Set<String>, patients: Set<Patient>
};
entity Record = { category: Category };
entity AuditLog;
entity PolicyStore;
type Asked = { purpose: Purpose, now: datetime, source: String };
action view, view_summary, view_masked appliesTo {
  principal: [User], resource: [Record], context: Asked
};
action read_audit appliesTo { principal: [User], resource: [AuditLog], context: Asked };
action edit_policy, approve_policy, activate_policy appliesTo {
  principal: [User], resource: [PolicyStore], context: Asked
};
"""
ROLES = """
[roles.nurse]
title = "Nurse"
parents = []
default_purpose = "TREAT"
purposes = ["TREAT"]
[roles.officer]
title = "Officer"
parents = []
default_purpose = "HCOMPL"
purposes = ["HCOMPL"]
"""


def rule(id_: str, scope: str, when: str, effect: str = "permit") -> str:
    return (
        f'@id("{id_}") @clause("164.502(b)") @owner("Officer") @review("2027-06-30")\n'
        f"{effect} ({scope}) when {{ {when} }};\n"
    )


NURSE = rule(
    "nurse_labs",
    'principal in Role::"nurse", action == Action::"view", resource',
    'resource.category == Category::"labs" && context.purpose in Purpose::"TREAT"',
)
OFFICER = rule(
    "officer_policies",
    'principal in Role::"officer", '
    'action in [Action::"edit_policy", Action::"approve_policy", Action::"activate_policy"], '
    "resource",
    'context.purpose in Purpose::"HCOMPL"',
)
SCENARIO = """
[[scenario]]
title = "a nurse and the results"
who = { role = "nurse", department = "north" }
purpose = "TREAT"
asks = "view"
record = { category = "labs" }
expect = "full"
clause = "164.506(c)"
"""
INVARIANT = """
[[invariant]]
id = "officers_read_no_labs"
words = "an officer is never shown a result"
clause = "164.502(b)"
claim = "at_most"
roles = ["officer"]
categories = ["labs"]
level = "withheld"
"""
MAP = """
source = "clinic"
patient = { table = "lab", key = "id", identifier = "id" }
code_sets = {}
[tables.lab]
row_category = "labs"
[tables.lab.columns]
id = "labs"
value = "labs"
"""


def bundle(**files: str) -> Bundle:
    """The clinic's policies; a name says which file is another one (``all`` = the policies)."""
    return Bundle(
        {
            "schema.cedarschema": SCHEMA,
            "roles.toml": files.pop("roles", ROLES),
            "purposes.toml": "TREAT = []\nHCOMPL = []\n",
            "all.cedar": files.pop("all", NURSE + OFFICER),
            "scenarios/labs.toml": files.pop("scenario", SCENARIO),
            "invariants/labs.toml": files.pop("invariant", INVARIANT),
            **files,
        }
    )


def person(uid: str, *roles: str, active: bool = True, until: datetime | None = None) -> Person:
    since = NOW - timedelta(days=30)
    held = tuple(Assignment(role, "north", since, until) for role in roles)
    return Person(uid, uid, uid, active, held)


OFFICERS = (person("ada", "officer"), person("ben", "officer"))


def candidate(
    wanted: Bundle, *, people: tuple[Person, ...] = OFFICERS, in_force: Bundle | None = None
) -> Candidate:
    version = open_bundle(bundle())
    return Candidate(
        subject="policies",
        bundle=wanted,
        in_force=in_force,
        version=version,
        data_map=open_map(Bundle({"clinic.toml": MAP}), version.schema),
        people=people,
        at=NOW,
    )


def stage(step: Step, given: Candidate) -> Evidence:
    [one] = [s for s in stages_of(given.subject) if s.step is step]
    return examine(one, given)


# --- the stages themselves -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "table"), [("policies", TRANSITIONS), ("map:clinic", MAP_TRANSITIONS)]
)
def test_the_stages_lead_from_a_draft_to_what_can_be_approved(subject: str, table: dict) -> None:
    state: State = State.DRAFT
    for one in stages_of(subject):
        state = table[state, one.step]
    assert state is State.COMPARED


def test_a_map_has_no_scenarios_and_no_invariants() -> None:
    assert [s.step for s in stages_of("map:clinic")] == [Step.VALIDATED, Step.COMPARED]
    assert (stages_of("policies"), stages_of("map:clinic")) == (POLICY_STAGES, MAP_STAGES)


def test_a_sound_version_passes_every_stage() -> None:
    given = candidate(bundle(), in_force=bundle())
    for one in POLICY_STAGES:
        found = examine(one, given)
        assert found.passed, found.summary
        assert found.summary


# --- validated -----------------------------------------------------------------------------------


def test_what_was_validated_is_told_in_numbers_and_by_its_hash() -> None:
    found = stage(Step.VALIDATED, candidate(bundle()))
    assert found.summary.startswith("2 policies and 2 roles, strictly valid and enforceable")
    assert found.report["policy_set"] == open_bundle(bundle()).policies.hash


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (bundle(all="permit (principal, action"), "all.cedar"),
        (bundle(all=NURSE.replace("nurse", "matron") + OFFICER), "matron"),
        (bundle(all=NURSE.replace("category", "colour") + OFFICER), "all.cedar"),
        (bundle(roles="[roles"), "roles.toml"),
        (Bundle({}), "schema.cedarschema"),
    ],
)
def test_a_version_that_does_not_read_is_evidence_with_its_place(wanted: Bundle, told: str) -> None:
    found = stage(Step.VALIDATED, candidate(wanted))
    assert not found.passed
    assert told in found.summary
    assert "\n" not in found.summary
    assert set(found.report) == {"fault", "code"}


def test_a_rule_that_cannot_be_a_row_filter_is_not_validated() -> None:
    hidden = NURSE.replace('resource.category == Category::"labs"', 'resource == Record::"one"')
    found = stage(Step.VALIDATED, candidate(bundle(all=hidden + OFFICER)))
    assert (found.passed, "nurse_labs" in found.summary) == (False, True)


def test_no_role_that_somebody_holds_may_be_gone() -> None:
    gone = bundle(
        roles=ROLES[ROLES.index("[roles.officer]") :], all=OFFICER, scenario="", invariant=""
    )
    held = (*OFFICERS, person("cleo", "nurse"))
    found = stage(Step.VALIDATED, candidate(gone, people=held))
    assert (found.passed, found.report) == (False, {"missing_roles": ["nurse"]})
    assert "role nurse" in found.summary
    for people in (OFFICERS, (*OFFICERS, person("cleo", "nurse", until=NOW))):
        assert stage(Step.VALIDATED, candidate(gone, people=people)).passed


@pytest.mark.parametrize(
    ("people", "rules", "told"),
    [
        ((), OFFICER, "nobody could put another one in force"),
        ((person("ada", "nurse"),), OFFICER, "nobody could put another one in force"),
        (OFFICERS, OFFICER.replace(', Action::"activate_policy"', ""), "nobody could put another"),
        ((person("ada", "officer"),), OFFICER, "not be two people"),
        ((*OFFICERS[:1], person("ben", "officer", active=False)), OFFICER, "not be two people"),
        ((*OFFICERS[:1], person("ben", "officer", until=NOW)), OFFICER, "not be two people"),
        (OFFICERS, OFFICER.replace('Action::"approve_policy", ', ""), "not be two people"),
        (OFFICERS, OFFICER.replace('Action::"edit_policy", ', ""), "not be two people"),
    ],
)
def test_nobody_is_locked_out_of_the_policies(
    people: tuple[Person, ...], rules: str, told: str
) -> None:
    found = stage(Step.VALIDATED, candidate(bundle(all=NURSE + rules), people=people))
    assert not found.passed
    assert told in found.summary
    assert found.report == {"stuck": found.summary}


# --- scenarios and invariants --------------------------------------------------------------------


def test_a_scenario_that_does_not_hold_stops_the_version() -> None:
    wanted = bundle(scenario=SCENARIO + SCENARIO.replace("the results", "no results").replace(
        '"full"', '"withheld"'
    ))  # fmt: skip
    found = stage(Step.TESTED, candidate(wanted))
    assert (found.passed, found.summary.split()[:3]) == (False, ["1", "of", "2"])
    assert found.report["scenarios"] == 2
    assert found.report["lines"] == found.report["failed"]
    assert "no results" in found.report["lines"][0]


def test_scenarios_tell_which_rules_they_leave_untested() -> None:
    found = stage(Step.TESTED, candidate(bundle()))
    assert (found.passed, found.summary.split()[0]) == (True, "1")
    assert "officer_policies" in str(found.report["untested"])
    assert "nurse_labs" not in str(found.report["untested"])


def test_a_version_without_scenarios_or_invariants_claims_nothing_and_stays_a_draft() -> None:
    files = dict(bundle().files)
    none = Bundle({k: v for k, v in files.items() if "/" not in k})
    assert "nothing says what must hold" in stage(Step.TESTED, candidate(none)).summary
    found = stage(Step.PROVED, candidate(none))
    assert not found.passed
    assert "nothing says what must hold" in found.summary


def test_an_invariant_that_is_refuted_stops_the_version_and_is_named() -> None:
    leak = rule(
        "officer_labs",
        'principal in Role::"officer", action == Action::"view_summary", resource',
        'resource.category == Category::"labs"',
    )
    found = stage(Step.PROVED, candidate(bundle(all=NURSE + OFFICER + leak)))
    assert (found.passed, found.summary.split()[:3]) == (False, ["1", "of", "1"])
    [told] = found.report["invariants"]
    assert (told["id"], told["verdict"] != "proved") == ("officers_read_no_labs", True)
    assert found.report["lines"][0].startswith("officers_read_no_labs is ")


def test_an_invariant_that_is_proved_is_told_with_its_verdict() -> None:
    found = stage(Step.PROVED, candidate(bundle()))
    assert found.passed
    assert [(i["id"], i["verdict"]) for i in found.report["invariants"]] == [
        ("officers_read_no_labs", "proved")
    ]


# --- comparison ----------------------------------------------------------------------------------


def test_the_first_version_has_nothing_to_be_compared_with() -> None:
    found = stage(Step.COMPARED, candidate(bundle()))
    assert found.passed
    assert found.summary.startswith("nothing was in force before; ")
    assert "not replayed" in found.summary
    assert set(found.report["files"].values()) == {"added"}


def test_the_same_policies_in_another_file_change_no_answer() -> None:
    files = {k: v for k, v in bundle().files.items() if k != "all.cedar"}
    moved = Bundle({**files, "a.cedar": OFFICER, "b.cedar": NURSE})
    found = stage(Step.COMPARED, candidate(moved, in_force=bundle()))
    assert found.summary.startswith("no answer changes; ")
    assert found.report["files"] == {"a.cedar": "added", "all.cedar": "removed", "b.cedar": "added"}
    assert found.report["changed"] == []


def test_what_is_newly_allowed_is_shown_by_an_example_and_judged_by_people() -> None:
    wider = NURSE.replace('resource.category == Category::"labs" && ', "")
    found = stage(Step.COMPARED, candidate(bundle(all=wider + OFFICER), in_force=bundle()))
    assert found.passed
    assert found.report["files"] == {"all.cedar": "changed"}
    changed = {(c["role"], c["category"]) for c in found.report["changed"]}
    assert ("nurse", "notes") in changed
    assert any("nurse" in line and "notes" in line for line in found.report["lines"])


def report(*, flipped: int) -> ReplayReport:
    row = FlipRow(
        flip=Flip.REFUSED,
        roles=("nurse",),
        action="select",
        table="public.lab",
        columns=("value",),
        before="allowed",
        after="refused",
        why="",
        statements=flipped,
        persons=("u1",),
        first=NOW,
        last=NOW,
        example=7,
    )
    return ReplayReport(
        candidate="c",
        decisions=9,
        requests=3,
        same=9 - flipped - 1,
        flipped=flipped,
        more=0,
        less=flipped,
        apart=((Apart.FORM, 1),),
        rows=(row,) if flipped else (),
        persons=("u1",) if flipped else (),
    )


def refuses() -> ReplayReport:
    raise Refused("you may not read the log")


@pytest.mark.parametrize(
    ("replay", "told"),
    [
        (lambda: report(flipped=0), r"none of \d recorded decisions would differ"),
        (lambda: report(flipped=2), r"2 of \d recorded decisions would differ"),
        (refuses, r"the recorded past was not replayed: you may not read the log"),
    ],
)
def test_the_recorded_past_is_told_and_never_fails_the_stage(
    replay: Callable[[], ReplayReport], told: str
) -> None:
    given = replace(candidate(bundle(), in_force=bundle()), replay=replay)
    found = stage(Step.COMPARED, given)
    assert found.passed
    assert re.search(told, found.summary)


def test_the_report_of_a_replay_names_roles_and_counts_and_no_person() -> None:
    given = replace(candidate(bundle(), in_force=bundle()), replay=lambda: report(flipped=2))
    told = stage(Step.COMPARED, given).report["replay"]
    assert (told["people"], told["rows"][0]["people"]) == (1, 1)
    assert (told["rows"][0]["roles"], told["rows"][0]["statements"]) == (("nurse",), 2)
    assert told["apart"] == {str(Apart.FORM): 1}
    assert "u1" not in str(told)


# --- data maps -----------------------------------------------------------------------------------


def source(*columns: str, name: str = "lab", schema: str = "public") -> Source:
    held = Table(TableName(schema, name), 1, tuple(Column(c, "text") for c in columns))
    return Source({held.name: held}, {})


def map_candidate(text: str = MAP, live: Source | None = None, **files: str) -> Candidate:
    wanted = Bundle({"clinic.toml": text, **files})
    return replace(
        candidate(wanted, in_force=Bundle({"clinic.toml": MAP})), subject="map:clinic", source=live
    )


def test_a_map_is_read_against_the_policies_in_force() -> None:
    found = stage(Step.VALIDATED, map_candidate())
    assert found.passed
    assert (found.report["tables"], found.report["columns"]) == (1, 2)
    assert "in the source" not in found.summary
    strange = stage(Step.VALIDATED, map_candidate(MAP.replace('value = "labs"', 'value = "x"')))
    assert (strange.passed, "clinic.toml" in strange.summary) == (False, True)


def test_a_map_names_only_what_the_source_has() -> None:
    found = stage(Step.VALIDATED, map_candidate(live=source("id", "value", "more")))
    assert found.passed
    assert "all of them in the source" in found.summary


@pytest.mark.parametrize(
    ("live", "absent"),
    [
        (source("id"), ["column lab.value"]),
        (source("other"), ["column lab.id", "column lab.value"]),
        (source("id", "value", name="labs"), ["table lab"]),
        (source("id", "value", schema="private"), ["table lab"]),
        (Source({}, {}), ["table lab"]),
    ],
)
def test_a_table_or_column_that_the_source_lacks_stops_the_map(
    live: Source, absent: list[str]
) -> None:
    found = stage(Step.VALIDATED, map_candidate(live=live))
    assert (found.passed, found.report) == (False, {"absent": absent})
    assert found.summary == f"the source has no {absent[0]}"


def test_a_map_is_compared_file_by_file() -> None:
    same = stage(Step.COMPARED, map_candidate())
    assert same.summary.startswith("no file differs; ")
    other = stage(Step.COMPARED, map_candidate(MAP + "\n"))
    assert other.summary.startswith("clinic.toml changed; ")
