"""Each role's scenarios, held against the role table that the shipped cells come from."""

import csv
import tomllib
from pathlib import Path

# Where the scenario's circumstances settle what the table leaves to its condition column.
SETTLED = {
    # full on the behavioural unit or the care team, otherwise summary: this nurse is on neither
    ("nurse", "behavioral_health"): "summary",
    # none, but full on the treatment team: these clinicians are on it
    ("physician", "protected_person"): "full",
    ("pharmacist", "protected_person"): "full",
    ("radiologist", "protected_person"): "full",
    ("behavioral_health_clinician", "protected_person"): "full",
    # full with a consent, which is not recorded
    ("behavioral_health_clinician", "sud_part2"): "masked",
    # masked for a consented biobank, which is not recorded
    ("researcher", "genetic"): "withheld",
}
# Cells that are open under their condition alone: the ceiling is what the condition opens.
RAISED = {
    ("physician", "protected_person"),
    ("nurse", "protected_person"),
    ("pharmacist", "protected_person"),
    ("radiologist", "protected_person"),
    ("behavioral_health_clinician", "protected_person"),
    ("nurse", "repro_sti_hiv"),
}
FILES = (
    "physician", "nurse", "receptionist_scheduler", "billing_coder", "pharmacist", "lab_tech",
    "radiologist", "behavioral_health_clinician", "him_records", "quality_analyst", "researcher",
    "privacy_officer", "it_support_dba", "vendor_contractor", "patient", "proxy",
)  # fmt: skip


def read_levels(shared_dir: Path) -> dict[tuple[str, str], str]:
    with (shared_dir / "reference" / "roles.csv").open(newline="") as table:
        return {
            (row["role_id"], row["phi_category"]): row["read"].replace("none", "withheld")
            for row in csv.DictReader(table)
        }


def test_the_scenarios_expect_what_the_role_table_says(shipped, shared_dir: Path) -> None:
    cells = read_levels(shared_dir)
    assert {role for role, _ in cells} == set(FILES)
    assert len(cells) == 16 * 20
    expected = {
        (assignment.role, scenario.record.category): scenario.expect
        for scenario in shipped.scenarios
        if scenario.file.removesuffix(".toml") in FILES and scenario.record is not None
        for assignment in scenario.who.assignments
    }
    assert expected == cells | SETTLED


def test_the_ceilings_are_those_of_the_role_table(shipped, shared_dir: Path) -> None:
    ceilings = tomllib.loads((shipped.folder / "ceilings.toml").read_text())
    found = {(role, c): level for role, cells in ceilings.items() for c, level in cells.items()}
    assert found == read_levels(shared_dir) | dict.fromkeys(RAISED, "full")


def test_the_emergency_procedure_is_open_to_those_whom_the_role_table_names(
    shipped, shared_dir: Path
) -> None:
    with (shared_dir / "reference" / "roles.csv").open(newline="") as table:
        listed = {
            (row["role_id"], row["phi_category"])
            for row in csv.DictReader(table)
            if row["break_glass_to_full"] == "yes"
        }
    assert len(listed) == 49
    assert {(n, c) for n, role in shipped.roles.roles.items() for c in role.break_glass} == listed
