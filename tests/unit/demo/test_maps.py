"""The data maps name every column of their schemas, and nothing special counts as ordinary."""

import csv
import tomllib
from pathlib import Path
from typing import Any

import pytest

from chartgate.datamap.read import read_map
from chartgate.demo import generator_catalogue as catalogue
from chartgate.demo.generator_schema import TABLES
from chartgate.demo.synthea import read_codes
from chartgate.demo.synthea_layout import SMART_R4, SYNTHEA

ADDED = {
    "department": {"code", "name", "kind", "floor"},
    "staff": {"staff_id", "username", "full_name", "title", "department"},
    "care_team": {"patient", "staff_id", "department", "since", "until"},
    "patient_flag": {"patient", "flag", "since"},
}
SCHEMAS = {
    "hospital": {table.name: set(table.column_names) for table in TABLES},
    "synthea": {**{name: set(columns) for name, columns in SYNTHEA.tables.items()}, **ADDED},
    "smart-r4": {**{name: set(columns) for name, columns in SMART_R4.tables.items()}, **ADDED},
}
CATEGORIES = frozenset(
    [
        "demographics",
        "gov_ids",
        "record_ids",
        "insurance",
        "scheduling",
        "clinical_summary",
        "notes",
        "labs",
        "imaging",
        "medications",
        "vitals_nursing",
        "billing",
        "behavioral_health",
        "psychotherapy_notes",
        "sud_part2",
        "repro_sti_hiv",
        "genetic",
        "protected_person",
        "audit_log",
        "technical",
    ]
)
# Columns that tell what a visit was about: each must be looked at for special categories.
TELLING = {"code", "reasoncode", "procedurecode", "diagnosis_code", "reason_code",
           "indication_code", "drug_code", "test_code",
           *(f"diagnosis{n}" for n in range(1, 9))}  # fmt: skip
ORDINARY_TABLES = {"department", "staff", "allergies", "immunizations"}


def document(root: Path, name: str) -> dict[str, Any]:
    return tomllib.loads((root / "maps" / f"{name}.toml").read_text("utf-8"))


def codes(root: Path, name: str) -> set[str]:
    return set(read_codes((root / "maps" / "codesets" / f"{name}.txt").read_text("utf-8")))


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_table_and_column_is_named(project_root: Path, name: str) -> None:
    tables = document(project_root, name)["tables"]
    assert {table: set(spec["columns"]) for table, spec in tables.items()} == SCHEMAS[name]


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_map_is_read_strictly(project_root: Path, name: str) -> None:
    text = document(project_root, name)
    sets = {
        key: frozenset(codes(project_root, Path(file).stem))
        for key, file in text["code_sets"].items()
    }
    assert text["source"] == name
    read = read_map(
        text,
        sets,
        categories=CATEGORIES,
        relation_types={
            "care_team": "Set<User>",
            "departments": "Set<Department>",
            "queues": "Set<Department>",
            "age_bands": "Set<AgeBand>",
        },
    )
    assert set(read.tables) == set(SCHEMAS[name])


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_table_about_a_patient_says_which(project_root: Path, name: str) -> None:
    for table, spec in document(project_root, name)["tables"].items():
        about = {"patient", "patient_id", "patientid"} & set(spec["columns"])
        assert bool(about) == ("patient" in spec) or table == "patients"


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_telling_code_carries_special_labels(project_root: Path, name: str) -> None:
    for table, spec in document(project_root, name)["tables"].items():
        if table in ORDINARY_TABLES:
            continue
        expected = TELLING & set(spec["columns"])
        assert {entry["column"] for entry in spec.get("special", ())} >= expected, table


def test_psychotherapy_notes_are_labelled(project_root: Path) -> None:
    labels = document(project_root, "hospital")["tables"]["clinical_note"]["row_labels"]
    assert {"category": "psychotherapy_notes", "when": "this.kind = 'psychotherapy'"} in labels


def test_the_hospitals_code_sets_cover_its_catalogue_without_overlap(project_root: Path) -> None:
    sets = {
        name: codes(project_root, f"hospital_{name}")
        for name in ("sud", "behavioral_health", "repro_sti_hiv", "ordinary")
    }
    assert {d.code for d in catalogue.SUD} <= sets["sud"]
    assert {d.code for d in catalogue.INTIMATE} == sets["repro_sti_hiv"]
    mind = {d.code for d in (*catalogue.DIAGNOSES["psychiatry"], *catalogue.CHILD_MIND)}
    assert mind == sets["behavioral_health"]
    body = {d.code for k, v in catalogue.DIAGNOSES.items() if k != "psychiatry" for d in v}
    assert body == sets["ordinary"]
    assert sum(map(len, sets.values())) == len(set().union(*sets.values()))


def test_the_ordinary_codes_are_not_on_the_federal_list(
    project_root: Path, shared_dir: Path
) -> None:
    with (shared_dir / "data" / "part2_codes.csv").open(newline="") as file:
        listed = {r["code"] for r in csv.DictReader(file) if r["code_system"] == "ICD-10-CM"}
    assert listed <= codes(project_root, "hospital_sud")
    assert not listed & codes(project_root, "hospital_ordinary")


def test_a_synthea_code_is_special_or_ordinary_and_never_both(project_root: Path) -> None:
    special = [codes(project_root, f"synthea_{n}")
               for n in ("sud", "behavioral_health", "repro_sti_hiv")]  # fmt: skip
    assert not set().union(*special) & codes(project_root, "synthea_ordinary")
