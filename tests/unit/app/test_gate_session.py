"""One session: who it is now, for what purpose, and what its events say."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chartgate.adapters.policy_files import load_decision_point
from chartgate.app.entitlement import DecisionPoint
from chartgate.app.exchange import Exchange
from chartgate.app.extended import ExtendedProtocol
from chartgate.app.gate_session import (
    AccessEnded,
    GateSession,
    Source,
)
from chartgate.app.in_force import InForce
from chartgate.app.planned import MAX_SOUGHT, Looked, Planned
from chartgate.app.rolebook import PurposeRefused
from chartgate.app.tokens import PatientTokens
from chartgate.errors import Refused
from chartgate.model.principal import Assignment, Person
from chartgate.sql.parse import ParsedStatement, split
from chartgate.sql.statement import Sought

START = datetime(2026, 12, 31, 23, 0, tzinfo=UTC)


class Hospital:
    """A directory and a clock in one; ``roles`` may end while a session lives."""

    def __init__(self) -> None:
        self.now = START
        self.fresh = True
        self.roles = ["privacy_officer", "nurse"]

    def person(self, name: str) -> Person | None:
        held = tuple(Assignment(role, "cardiology", START, None) for role in self.roles)
        return Person("u1", name, "Nora Adams", True, held)

    def is_fresh(self) -> bool:
        return self.fresh


@pytest.fixture(scope="module")
def point(project_root: Path) -> DecisionPoint:
    return load_decision_point(project_root / "policies", project_root / "maps" / "hospital.toml")


@pytest.fixture
def hospital() -> Hospital:
    return Hospital()


@pytest.fixture
def session(point: DecisionPoint, hospital: Hospital) -> GateSession:
    made = GateSession(
        session_id="s1",
        name="nadams",
        node="n1",
        channel="test",
        secret="0" * 32,
        purpose="",
        in_force=InForce(point, Source({}, {})),
        directory=hospital,
        tokens=PatientTokens({2026: b"a" * 32, 2027: b"b" * 32}, "hospital"),
        now=lambda: hospital.now,
    )
    made.begin("")
    return made


def test_a_purpose_ends_with_the_role_it_was_claimed_for(
    session: GateSession, hospital: Hospital
) -> None:
    session.check_claim("HCOMPL")
    session.adopt("HCOMPL")
    assert session.entitlement().asker.purpose == "HCOMPL"
    hospital.roles = ["nurse"]
    assert session.entitlement().asker.purpose == "TREAT"
    with pytest.raises(PurposeRefused):
        session.check_claim("HCOMPL")


def test_a_session_without_a_role_has_ended(session: GateSession, hospital: Hospital) -> None:
    hospital.roles = []
    with pytest.raises(AccessEnded, match="no role"):
        session.entitlement()


def test_a_control_plane_that_is_not_heard_of_ends_the_session(
    session: GateSession, hospital: Hospital
) -> None:
    hospital.fresh = False
    with pytest.raises(AccessEnded, match="control plane"):
        session.entitlement()


def test_a_new_year_has_other_tokens(session: GateSession, hospital: Hospital) -> None:
    before = session.token("patient", "7")
    hospital.now += timedelta(hours=2)
    assert session.token("patient", "7") != before


def test_whom_a_statement_looks_for_is_bounded_and_what_was_not_read_is_counted(
    session: GateSession,
) -> None:
    looked = Looked(session.token)
    looked.add([Sought("patient", "7", None), Sought("patient", "7", None)])
    assert looked.tokens == (session.token("patient", "7"),)
    looked.add([Sought("patient", None, 1)], lambda _: (False, None))
    assert looked.unread == 1
    (statement,) = split("SHOW chartgate.purpose")
    event = session.allowed("s1/1", session.plan(statement), looked)
    assert event.context["sought_unread"] == "1"
    with pytest.raises(Refused, match="at most 1000 patients"):
        looked.add(Sought("patient", str(n), None) for n in range(MAX_SOUGHT + 1))


def test_a_savepoint_may_be_named_after_a_patient_and_the_log_does_not_say_so(
    session: GateSession,
) -> None:
    (statement,) = split("SAVEPOINT whitfield")
    assert "whitfield" not in session.plan(statement).statement.lower()


def test_a_search_path_is_shown_as_it_is_in_force(session: GateSession) -> None:
    (statement,) = split("SHOW search_path")
    assert session.plan(statement).upstream == "SELECT 'public'::pg_catalog.text AS \"search_path\""


def test_a_plan_belongs_to_the_entitlement_it_was_made_for_though_the_clock_moves_meanwhile(
    session: GateSession, hospital: Hospital
) -> None:
    """An assignment ends while a statement is being planned: the plan must not outlive it."""
    protocol = ExtendedProtocol(Exchange(session))
    (statement,) = split("SHOW chartgate.purpose")
    plan = session.plan

    def slow(one: ParsedStatement) -> Planned:
        made = plan(one)
        hospital.roles = ["nurse"]
        return made

    session.plan = slow  # type: ignore[method-assign]
    prepared = protocol._prepared("", statement, ())
    assert prepared.planned.asker is not None
    assert set(prepared.planned.asker.roles) == {"nurse", "privacy_officer"}
    # What is current now is another: it is decided again before it may run.
    assert prepared.entitlement is not session.entitlement()
