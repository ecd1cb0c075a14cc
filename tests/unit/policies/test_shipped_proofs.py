"""What the shipped policies claim is proved, and they are as wide as the role table, no wider."""

import csv
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.ceilings import ceilings_of, prove_ceilings
from chartgate.app.invariants import invariants_of, read_invariants
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.prove import Proof, prove, prover_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECONDS = 60.0
CLAUSE = re.compile(r"(164|42 CFR 2)\.\d+(\([a-zA-Z0-9]+\))*")
ACTIONS = {"full": "view", "summary": "view_summary", "masked": "view_masked"}

# The patient's label: whoever of the care team may write the entry itself may write it about a
# protected patient too.
CHARTED = {
    (action, role, "protected_person")
    for action in ("create", "update")
    for role in ("physician", "nurse", "pharmacist", "radiologist", "behavioral_health_clinician")
}
# Stricter than the table: what it asks for beside (a consent, a biobank's) is not recorded.
STRICTER = {
    ("view", "behavioral_health_clinician", "sud_part2"),
    ("view_masked", "researcher", "genetic"),
}


@pytest.fixture(scope="module")
def version(project_root: Path) -> PolicyVersion:
    return load_policy_version(project_root / "policies")


@pytest.fixture(scope="module")
def table(shared_dir: Path) -> list[dict[str, str]]:
    with (shared_dir / "reference" / "roles.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def clock() -> float:
    return 0.0


def broken(version: PolicyVersion, claims: dict[tuple[str, str, str], dict[str, Any]]) -> set[Any]:
    """The cells whose claim is not proved."""
    names = {f"claim_{number}": cell for number, cell in enumerate(claims)}
    forms = [
        {"id": name, "words": "a cell of the role table", "clause": "164.514(d)(2)",
         "claim": "never", "roles": [cell[1]], "categories": [cell[2]], **claims[cell]}
        for name, cell in names.items()
    ]  # fmt: skip
    invariants = read_invariants("table", {"invariant": forms}, version)
    prover = prover_of(version, invariants, now=NOW, timeout=SECONDS)
    proofs = prove(prover, invariants, clock=clock)
    assert {proof.verdict for proof in proofs} <= {"proved", "violated"}
    return {names[proof.invariant.id] for proof in proofs if proof.verdict == "violated"}


def test_every_invariant_is_proved(version: PolicyVersion) -> None:
    invariants = invariants_of(version)
    prover = prover_of(version, invariants, now=NOW, timeout=SECONDS)
    proofs: tuple[Proof, ...] = prove(prover, invariants, clock=clock)
    assert [(p.invariant.id, p.why) for p in proofs if p.verdict != "proved"] == []
    assert len(proofs) >= 20


def test_every_invariant_cites_its_clauses(version: PolicyVersion) -> None:
    for invariant in invariants_of(version):
        assert all(CLAUSE.fullmatch(c) for c in invariant.clause.split("; ")), invariant.id


def test_no_permission_is_left_out_of_those_that_must_matter(version: PolicyVersion) -> None:
    (matter,) = (i for i in invariants_of(version) if i.claim == "not_shadowed")
    permits = [p.id for p in version.policies.policies if p.effect == "permit"]
    assert sorted(matter.policies) == sorted(permits)


@pytest.mark.parametrize("others", [False, True], ids=["that-role-alone", "with-other-roles"])
def test_every_ceiling_is_proved(version: PolicyVersion, others: bool) -> None:
    prover = prover_of(version, (), now=NOW, timeout=SECONDS)
    cells = prove_ceilings(prover, ceilings_of(version), clock=clock, others=others)
    assert [(c.role, c.category, c.why) for c in cells if c.verdict != "proved"] == []
    assert len(cells) == 16 * 20


def test_nobody_writes_what_the_role_table_does_not_let_her(
    version: PolicyVersion, table: list[dict[str, str]]
) -> None:
    claims = {
        (action, row["role_id"], row["phi_category"]): {"actions": [action]}
        for row in table
        for action in ("create", "update")
        if row[action] == "no"
    }
    assert len(claims) == 547
    assert broken(version, claims) == CHARTED


def test_nobody_sees_a_patients_cell_for_a_purpose_that_the_role_table_does_not_name(
    version: PolicyVersion, table: list[dict[str, str]]
) -> None:
    claims: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in table:
        claim = {"actions": ["view_masked"], "when": "resource has patient"}
        if row["purpose_of_use"]:
            named = row["purpose_of_use"].split("|")
            claim["unless"] = " || ".join(f'context.purpose in Purpose::"{n}"' for n in named)
        claims["view_masked", row["role_id"], row["phi_category"]] = claim
    assert broken(version, claims) == set()


@pytest.mark.slow
def test_what_the_role_table_opens_is_open_under_some_circumstances(
    version: PolicyVersion, table: list[dict[str, str]]
) -> None:
    cells = {
        (ACTIONS[row["read"]], row["role_id"], row["phi_category"])
        for row in table
        if row["read"] != "none"
    } | {
        (action, row["role_id"], row["phi_category"])
        for row in table
        for action in ("create", "update")
        if row[action] == "yes"
    }
    reached = broken(version, {cell: {"actions": [cell[0]]} for cell in cells})
    assert cells - reached == STRICTER
