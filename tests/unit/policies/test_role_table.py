"""The six people's scenarios, held against the role table that the shipped cells come from."""

import csv
from pathlib import Path

# Where the scenario's circumstances settle what the table leaves to its condition column.
SETTLED = {
    # full on the behavioural unit or the care team, otherwise summary: this nurse is on neither
    ("nurse", "behavioral_health"): "summary",
    # none, but full on the treatment team: this physician is on it
    ("physician", "protected_person"): "full",
}
FILES = (
    "physician", "nurse", "receptionist_scheduler", "billing_coder", "privacy_officer",
    "it_support_dba",
)  # fmt: skip


def test_the_scenarios_expect_what_the_role_table_says(shipped, shared_dir: Path) -> None:
    with (shared_dir / "reference" / "roles.csv").open(newline="") as table:
        cells = {
            (row["role_id"], row["phi_category"]): row["read"].replace("none", "withheld")
            for row in csv.DictReader(table)
            if row["role_id"] in FILES
        }
    expected = {
        (assignment.role, scenario.record.category): scenario.expect
        for scenario in shipped.scenarios
        if scenario.file.removesuffix(".toml") in FILES and scenario.record is not None
        for assignment in scenario.who.assignments
    }
    assert expected == cells | SETTLED
