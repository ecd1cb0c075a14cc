"""A published hospital policy: break-glass, consent, shifts, departments, own records.

The rules and verdicts are those of the STAPL e-health example (github.com/stapl-dsl/stapl-examples,
Apache-2.0, Copyright 2014 KU Leuven Research and Development, iMinds, DistriNet), restated; see
``tests/cases/stapl_ehealth``. Every case is decided by the reference evaluator, by the compiled
policies and by cedarpy.
"""

import tomllib
from typing import Any

import cedarpy
import pytest

from strategies.published import CASES, Case, Published

SET = Published("stapl_ehealth")
CASES_THERE: list[dict[str, Any]] = tomllib.loads(
    (CASES / "stapl_ehealth" / "cases.toml").read_text()
)["cases"]

PATIENTS = ["a", "x", "y", "z"]
LEAST: dict[str, Any] = {
    "person": {
        "in": [],
        "unit": "none",
        "place": "elsewhere",
        "brokeGlass": False,
        "isHead": False,
        "mayMonitor": False,
        "shiftFrom": "2026-03-24T00:00:00Z",
        "shiftTo": "2026-03-24T00:00:00Z",
        "ownPatients": [],
        "treated": [],
        "treatedByTeam": [],
        "treatedLately": [],
        "onCareUnit": [],
        "onNurseUnit": [],
        "assigned": [],
    },
    "report": {
        "patient": "a",
        "barred": [],
        "physicians": [],
        "made": "2020-01-01",
        "condition": "good",
        "alarmByOperator": False,
        "alarmByReading": False,
        "discharged": "2020-01-01",
    },
}
MOST: dict[str, Any] = {
    "person": {
        **LEAST["person"],
        "in": ["medical", "physician"],
        "unit": "heart",
        "place": "hospital",
        "brokeGlass": True,
        "isHead": True,
        "mayMonitor": True,
        "shiftFrom": "2000-01-01",
        "shiftTo": "2100-01-01",
        "consulting": "a",
        "self": "a",
        **dict.fromkeys(
            (
                "ownPatients",
                "treated",
                "treatedByTeam",
                "treatedLately",
                "onCareUnit",
                "onNurseUnit",
                "assigned",
            ),
            PATIENTS,
        ),
    },
    "report": {
        **{k: v for k, v in LEAST["report"].items() if k != "discharged"},
        "physicians": ["ines"],
        "made": "2026-03-24",
        "condition": "bad",
        "alarmByOperator": True,
        "alarmByReading": True,
    },
}
PLAIN = {"unit", "place", "shiftFrom", "shiftTo", "made", "condition", "discharged"}


def case_of(there: dict[str, Any], filling: dict[str, Any]) -> Case:
    """What a case says, and ``filling`` for what it leaves open."""
    person = {**filling["person"], **there.get("person", {})}
    report = {**filling["report"], **there.get("report", {})}
    roles = [f"Role::{role}" for role in person.pop("in")]
    return Case(
        name=there["case"],
        who="Person::ines",
        does=there.get("does", "read"),
        what="Report::one",
        verdict=there["verdict"],
        context={"now": there.get("now", "2026-03-24T14:02:01Z")},
        entities={
            "Person::ines": {"in": roles, **_referring(person)},
            "Report::one": _referring(report),
            "Role::physician": {"in": there.get("physician_in", [])},
        },
    )


def _referring(given: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if name in PLAIN else _entities(name, value) for name, value in given.items()
    }


def _entities(name: str, value: Any) -> Any:
    kind = "Person" if name in {"barred", "physicians"} else "Patient"
    if isinstance(value, list):
        return [f"@{kind}::{one}" for one in value]
    return f"@{kind}::{value}" if isinstance(value, str) else value


@pytest.mark.parametrize("filling", [LEAST, MOST], ids=["open-ends-least", "open-ends-most"])
@pytest.mark.parametrize("there", CASES_THERE, ids=[c["original"] for c in CASES_THERE])
def test_every_case_is_decided_as_it_was_published(
    there: dict[str, Any], filling: dict[str, Any]
) -> None:
    case = case_of(there, filling)
    assert SET.answers(case) == dict.fromkeys(("reference", "compiled", "cedarpy"), case.verdict)


def test_all_of_the_published_cases_are_here() -> None:
    verdicts = [case["verdict"] for case in CASES_THERE]
    assert (len(verdicts), verdicts.count("allow")) == (18, 8)
    assert len({case["original"] for case in CASES_THERE}) == 18


def test_cedarpy_finds_the_policy_strictly_valid_too() -> None:
    assert cedarpy.validate_policies(SET.text, SET.schema_text).validation_passed


# --- the rules that no published case reaches ----------------------------------------------------
# What the published policy says of them is plain from its text; the expectation is written here.

ON_SHIFT = {"in": ["medical", "nurse"], "brokeGlass": False, "unit": "heart", "onNurseUnit": ["x"]}
REPORT = {"patient": "x", "barred": [], "made": "2026-03-24"}
QUIET = {**REPORT, "alarmByOperator": False, "alarmByReading": False}
PHYSICIAN = {"in": ["medical", "physician"], "brokeGlass": False, "isHead": False}
TREATS_NOBODY = {
    "ownPatients": ["y"],
    "treated": ["y"],
    "treatedByTeam": ["y"],
    "treatedLately": ["y"],
    "onCareUnit": ["y"],
}
STRANGER = {**PHYSICIAN, **TREATS_NOBODY, "consulting": "y"}
GP = {**STRANGER, "in": ["medical", "physician", "gp"], "unit": "none"}
GLASS = {"brokeGlass": True}
BOTH = {**STRANGER, "in": ["medical", "physician", "patient"], "mayMonitor": True, "self": "x"}
PATIENT = {"in": ["patient"], "brokeGlass": False, "unit": "none", "self": "x"}


@pytest.mark.parametrize(
    ("said", "person", "report", "verdict"),
    [
        ("a nurse of cardiology on her unit", ON_SHIFT, REPORT, "allow"),
        ("not on her unit", {**ON_SHIFT, "onNurseUnit": ["y"]}, REPORT, "deny"),
        ("discharged three days ago", ON_SHIFT, {**REPORT, "discharged": "2026-03-21T14:02:01Z"}, "allow"),
        ("a second more than that", ON_SHIFT, {**REPORT, "discharged": "2026-03-21T14:02:00Z"}, "deny"),
        ("made five days ago", ON_SHIFT, {**REPORT, "made": "2026-03-19T14:02:01Z"}, "allow"),
        ("a second more", ON_SHIFT, {**REPORT, "made": "2026-03-19T14:02:00Z"}, "deny"),
        ("the shift begins now", {**ON_SHIFT, "shiftFrom": "2026-03-24T14:02:01Z"}, REPORT, "allow"),
        ("the shift begins in a second", {**ON_SHIFT, "shiftFrom": "2026-03-24T14:02:02Z"}, REPORT, "deny"),
        ("the shift ended a second ago", {**ON_SHIFT, "shiftTo": "2026-03-24T14:02:00Z"}, REPORT, "deny"),
        ("a nurse of another unit", {**ON_SHIFT, "unit": "emergency"}, REPORT, "deny"),
        ("broken glass does not lengthen a shift", {**ON_SHIFT, "brokeGlass": True, "shiftTo": "2026-03-24"}, REPORT, "deny"),
        ("the head of cardiology", {**STRANGER, "unit": "heart", "isHead": True}, QUIET, "allow"),
        ("a cardiologist who treated her", {**STRANGER, "unit": "heart", "treated": ["x"]}, QUIET, "allow"),
        ("whose team treated her", {**STRANGER, "unit": "heart", "treatedByTeam": ["x"]}, QUIET, "allow"),
        ("who never did", {**STRANGER, "unit": "heart"}, {**QUIET, "physicians": []}, "deny"),
        ("elder care, on the care unit", {**STRANGER, "unit": "elderly", "onCareUnit": ["x"]}, QUIET, "allow"),
        ("elder care, treated lately", {**STRANGER, "unit": "elderly", "treatedLately": ["x"]}, QUIET, "allow"),
        ("elder care, neither", {**STRANGER, "unit": "elderly"}, QUIET, "deny"),
        ("emergency, and she is bad", {**STRANGER, "unit": "emergency"}, {**QUIET, "condition": "bad"}, "allow"),
        ("emergency, and she is not", {**STRANGER, "unit": "emergency"}, {**QUIET, "condition": "good"}, "deny"),
        ("a GP in consultation with her", {**GP, "consulting": "x"}, {**QUIET, "physicians": []}, "allow"),
        ("her GP", {**GP, "ownPatients": ["x"]}, {**QUIET, "physicians": []}, "allow"),
        ("a GP entered as responsible", GP, {**QUIET, "physicians": ["ines"]}, "allow"),
        ("a GP who is nothing to her", GP, {**QUIET, "physicians": []}, "deny"),
        ("an alarm is not for GPs", GP, {**REPORT, "alarmByOperator": True, "physicians": []}, "deny"),
        ("a patient, her own", {**PATIENT, "mayMonitor": True}, REPORT, "allow"),
        ("a patient, another's", {**PATIENT, "mayMonitor": True, "self": "y"}, REPORT, "deny"),
        ("a patient no longer enrolled", {**PATIENT, "mayMonitor": False}, REPORT, "deny"),
        ("a nurse who is the patient is held to both", {**ON_SHIFT, "in": ["medical", "nurse", "patient"], "mayMonitor": True, "self": "y"}, REPORT, "deny"),
        ("consent withdrawn from the head", {**STRANGER, "unit": "heart", "isHead": True}, {**QUIET, "barred": ["ines"]}, "deny"),
        ("glass broken by a courier", {**GLASS, "in": ["medical", "courier"]}, QUIET, "deny"),
        ("glass broken where nobody monitors", {**PHYSICIAN, **GLASS, "unit": "skin"}, QUIET, "deny"),
        ("glass broken by a GP who is nothing to her", {**GP, **GLASS}, {**QUIET, "physicians": []}, "deny"),
        ("glass broken by a nurse of another unit", {**ON_SHIFT, **GLASS, "unit": "emergency"}, QUIET, "deny"),
        ("glass broken by a nurse not on her unit", {**ON_SHIFT, **GLASS, "onNurseUnit": ["y"]}, QUIET, "deny"),
        ("or not assigned to her", {**ON_SHIFT, **GLASS, "unit": "elderly", "mayMonitor": True, "assigned": ["y"]}, QUIET, "deny"),
        ("a cardiologist as her own patient", {**BOTH, "unit": "heart"}, QUIET, "deny"),
        ("elder care as her own patient", {**BOTH, "unit": "elderly"}, QUIET, "deny"),
        ("emergency as her own patient", {**BOTH, "unit": "emergency"}, {**QUIET, "condition": "good"}, "deny"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_rules_that_no_published_case_reaches(
    said: str, person: dict[str, Any], report: dict[str, Any], verdict: str
) -> None:
    case = case_of({"case": said, "verdict": verdict, "person": person, "report": report}, MOST)
    assert SET.answers(case) == dict.fromkeys(("reference", "compiled", "cedarpy"), verdict)


def test_a_role_within_a_role_counts_as_both() -> None:
    """The templated spelling of the policy gives a profession its group, not the person."""
    there = {**CASES_THERE[7], "physician_in": ["Role::medical"]}
    there["person"] = {**there["person"], "in": ["physician"]}
    assert set(SET.answers(case_of(there, LEAST)).values()) == {"allow"}
    barred = {**there, "report": {"barred": ["ines"]}}
    barred["person"] = {**there["person"], "brokeGlass": False}
    assert set(SET.answers(case_of(barred, MOST)).values()) == {"deny"}
