"""How the log spells the assignments a decision was made for."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.model.principal import Assignment

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("role", "department", "reference", "spelt"),
    [
        ("physician", "Cardiology", "HR-1", "physician@Cardiology#HR-1"),
        ("privacy_officer", None, None, "privacy_officer"),
        ("vendor_contractor", None, "BAA-7#2", "vendor_contractor#BAA-7%232"),
        ("nurse", "a@b%40", None, "nurse@a%40b%2540"),
        ("nurse", "", "", "nurse@#"),
        ("patient", None, "request!7", "patient#request%217"),
    ],
)
def test_an_assignment_is_spelt_as_role_at_department_and_reference(
    role: str, department: str | None, reference: str | None, spelt: str
) -> None:
    assignment = Assignment(role, department, BEGINNING, None, reference)
    assert assignment.held() == spelt
    assert Assignment.from_held(spelt) == assignment


@given(st.text(), st.none() | st.text(), st.none() | st.text())
def test_every_assignment_is_read_back(
    role: str, department: str | None, reference: str | None
) -> None:
    assignment = Assignment(role, department, BEGINNING, None, reference)
    assert Assignment.from_held(assignment.held("ab" * 16)) == assignment


def test_whom_an_assignment_is_about_stands_as_a_token() -> None:
    token = "0123456789abcdef" * 2
    assignment = Assignment("patient", None, BEGINNING, None)
    assert assignment.held(token) == f"patient!{token}"
    assert Assignment.from_held(f"patient!{token}") == assignment
