"""explain, who-can, what-can and policy coverage of the running demo: right, complete, recorded."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from chartgate.app.explain_question import Question, decide, judging
from chartgate.cedar.values import CedarSet, RecordValue
from chartgate.cli.main import app
from chartgate.cli.policy_store import opened
from chartgate.model.event import AuditRead
from chartgate.model.principal import EntityUid

pytestmark = pytest.mark.system

Told = Callable[..., str]


@pytest.fixture
def told(gate: Any) -> Told:
    """A command's output; it must end well unless ``status`` says otherwise."""

    def run(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, [*words, "--state", str(gate.state.root)])
        assert result.exit_code == status, result.output
        return result.output

    return run


def test_a_denial_is_explained_with_the_values_and_the_smallest_change(
    gate: Any, told: Told
) -> None:
    before = gate.size
    out = told("explain", "mwelby", "view", "labs", "--record", "departments=oncology")
    assert "NO: she sees nothing." in out
    assert "physician_treats" in out
    assert "the person's departments: cardiology" in " ".join(out.split())
    assert "1. she is put on the patient's care team" in out
    asked = [e for _, e in gate.events(before) if isinstance(e, AuditRead)]
    assert [e.question for e in asked] == ["why somebody may or may not"]
    assert "mwelby" not in str(asked[0].parameters)
    assert "oncology" not in str(asked[0].parameters)
    with gate.control() as plane:
        assert asked[0].parameters["person"] == plane.snapshot().persons["mwelby"].uid


def test_what_is_said_to_be_allowed_is_what_the_gate_shows(gate: Any, told: Told) -> None:
    answer = json.loads(
        told("explain", "rpatel", "view", "labs", "--record", "departments=cardiology", "--json")
    )
    assert answer["answer"] == "nothing"
    answer = json.loads(
        told("explain", "mwelby", "view", "labs", "--record", "departments=cardiology", "--json")
    )
    assert (answer["answer"], answer["determining"]) == ("in full", ["physician_treats"])
    with gate.connect("rpatel") as connection:
        assert connection.execute("SELECT count(*) FROM lab_result").fetchone() == (0,)


def test_who_can_lists_exactly_those_whom_the_reference_allows(gate: Any, told: Told) -> None:
    record = {
        "departments": CedarSet.of([EntityUid("Department", "cardiology")]),
        "care_team": CedarSet.of([EntityUid("User", "oncdoc")]),
        "patient": EntityUid("Patient", "someone"),
    }
    answer = json.loads(
        told(
            "who-can", "view", "labs", "--json",
            "--record", "departments=cardiology", "--record", "care_team=oncdoc",
            "--record", "patient=someone",
            *(w for name in ("author", "department") for w in ("--record", f"{name}=none")),
            *(w for name in ("queues", "age_bands") for w in ("--record", f"{name}=none")),
        )
    )  # fmt: skip
    expected = set()
    with opened(gate.state.root) as store:
        version = store.loaded().version
        for name, person in store.control.snapshot().persons.items():
            for purpose in version.roles.purposes:
                asked = Question(
                    "view", ("labs",), purpose, datetime.now(UTC),
                    RecordValue({"queues": CedarSet.of(()), "age_bands": CedarSet.of(()), **record}),
                )  # fmt: skip
                if decide(judging(version, person, asked), version.policies).rank:
                    expected.add((name, purpose))
    got = {(p["person"], c) for p in answer["people"] for h in p["holdings"] for c in h["purposes"]}
    assert got == expected
    assert {"mwelby", "oncdoc", "nadams"} <= {name for name, _ in got}


def test_who_can_says_until_when_and_what_ends_it(gate: Any, told: Told) -> None:
    ends = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    with gate.control() as plane:
        assignment = plane.assign(
            "rpatel", "nurse", "cardiology",
            valid_from=datetime.now(UTC) - timedelta(hours=1), valid_until=ends, reference="locum",
        )  # fmt: skip
    try:
        answer = json.loads(
            told("who-can", "view", "labs", "--record", "departments=cardiology", "--json")
        )
        (his,) = [p for p in answer["people"] if p["person"] == "rpatel"]
        full = [h for h in his["holdings"] if h["may"] == "in full"]
        assert {h["until"] for h in full} == {ends.isoformat().replace("+00:00", "Z")}
        assert [e["ending"][0]["role"] for e in full[0]["ended_by"]] == ["nurse"]
    finally:
        with gate.control() as plane:
            plane.end_assignment(assignment, at=datetime.now(UTC))


def test_what_can_tells_all_that_a_nurse_may(told: Told) -> None:
    out = " ".join(told("what-can", "nadams").split())
    assert "What may Nora Adams (nadams) do" in out
    assert "of patients on whose care team she is, or of patients treated in cardiology" in out
    assert "psychotherapy" not in out
    assert "the question is event" in out


def test_whom_policy_does_not_let_read_the_log_learns_nothing(gate: Any, told: Told) -> None:
    for words in (
        ("who-can", "view", "labs"),
        ("what-can", "nadams"),
        ("explain", "nadams", "view", "labs"),
        ("policy", "coverage", "--log"),
    ):
        before = gate.size
        out = told(*words, "--as", "mwelby", status=1)
        assert "does not let mwelby read the audit log" in " ".join(out.split())
        assert "Nora" not in out
        (refused,) = [e for _, e in gate.events(before) if isinstance(e, AuditRead)]
        assert not refused.allowed


def test_coverage_over_the_log_counts_what_decided(gate: Any, told: Told) -> None:
    def count() -> int:
        found = json.loads(told("policy", "coverage", "--log", "--since", "1d", "--json"))
        return next(p["count"] for p in found["policies"] if p["id"] == "physician_treats")

    before = count()
    with gate.connect("mwelby") as connection:
        connection.execute("SELECT count(*) FROM lab_result").fetchall()
    assert count() > before
    assert "decided nothing" in told("policy", "coverage", "--log")


def test_an_unknown_person_action_or_category_is_one_line(told: Told) -> None:
    assert "no person of that name" in told("explain", "nobody", "view", "labs", status=1)
    assert "no action 'peek'" in told("who-can", "peek", "labs", status=1)
    assert "no category 'lab'" in told("who-can", "view", "lab", status=1)
    assert "the keys are" in told("who-can", "view", "labs", "--record", "x=1", status=1)
