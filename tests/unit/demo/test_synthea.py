"""Synthea CSV: both layouts are known, anything else is one clear line."""

import csv
import gzip
import random
import re
import shutil
from datetime import date
from pathlib import Path

import pytest

from chartgate.demo import synthea
from chartgate.demo.synthea_layout import SMART_R4, SYNTHEA, Layout

TODAY = date(2026, 11, 22)
SETS = {"smart-r4-csv": SMART_R4, "dbt-synthea-27": SYNTHEA}


def make(folder: Path, layout: Layout, **rows: list[list[str]]) -> Path:
    """A tiny set: every table with its header, and the rows given."""
    folder.mkdir()
    for name, columns in layout.tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([column.upper() for column in columns])
            writer.writerows(rows.get(name, []))
    return folder


def patient(layout: Layout, key: str) -> list[str]:
    return [key] + [""] * (len(layout.tables["patients"]) - 1)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make(
        tmp_path / "tiny",
        SYNTHEA,
        patients=[patient(SYNTHEA, f"p{n}") for n in range(12)],
        conditions=[
            ["2020-01-01", "", "p0", "e0", "1", "Opioid abuse (disorder)"],
            ["2020-01-01", "", "p0", "e0", "2", "Latex (substance)"],
            ["2020-01-01", "", "p0", "e0", "3", ""],
            ["2020-01-01", "", "p1", "e1", "4", "Sprain of ankle"],
            ["2020-01-01", "", "p2", "e1", "4", "Sprain of ankle during an assault"],
        ],
    )


@pytest.mark.parametrize("name", SETS)
def test_the_real_sets_are_recognised(shared_dir: Path, name: str) -> None:
    assert synthea.detect_layout(shared_dir / "data" / name) is SETS[name]


@pytest.mark.parametrize("name", SETS)
def test_the_layouts_name_exactly_the_columns_of_the_real_sets(shared_dir: Path, name: str) -> None:
    for table, columns in SETS[name].tables.items():
        path = shared_dir / "data" / name / f"{table}.csv.gz"
        with gzip.open(path, "rt", newline="") as file:
            assert [c.lower() for c in next(csv.reader(file))] == list(columns)


def test_a_folder_without_patients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(synthea.UnknownData, match=r"no patients\.csv"):
        synthea.detect_layout(tmp_path)
    with pytest.raises(synthea.UnknownData, match="is not a folder"):
        synthea.detect_layout(tmp_path / "absent")


def test_a_missing_table_or_column_is_named(tiny: Path) -> None:
    (tiny / "conditions.csv").write_text("START,STOP,PATIENT,ENCOUNTER,DESCRIPTION\n")
    with pytest.raises(synthea.UnknownData, match="conditions has no column code"):
        synthea.source(tiny, random.Random(1), TODAY)
    (tiny / "encounters.csv").unlink()
    with pytest.raises(synthea.UnknownData, match="no file for the table encounters"):
        synthea.source(tiny, random.Random(1), TODAY)


def test_a_torn_line_is_named_without_its_values(tiny: Path) -> None:
    with (tiny / "allergies.csv").open("a") as file:
        file.write("secret,only\n")
    loaded = synthea.source(tiny, random.Random(1), TODAY)
    with pytest.raises(synthea.UnknownData, match="allergies, line 2: wrong number") as caught:
        [list(table.rows) for table in loaded.tables]
    assert "secret" not in str(caught.value)


def test_plain_and_zipped_files_read_the_same(tiny: Path) -> None:
    before = [list(t.rows) for t in synthea.source(tiny, random.Random(1), TODAY).tables]
    for path in list(tiny.glob("*.csv")):
        with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb") as zipped:
            shutil.copyfileobj(plain, zipped)
        path.unlink()
    assert [list(t.rows) for t in synthea.source(tiny, random.Random(1), TODAY).tables] == before


def test_an_empty_field_is_null_and_an_unknown_column_is_text(tiny: Path) -> None:
    (tiny / "supplies.csv").write_text(
        "DATE,PATIENT,ENCOUNTER,CODE,DESCRIPTION,QUANTITY,EXTRA\n2020-01-01,p0,,1,x,2,new\n"
    )
    loaded = synthea.source(tiny, random.Random(1), TODAY)
    supplies = next(t for t in loaded.tables if t.table == "supplies")
    assert list(supplies.rows) == [("2020-01-01", "p0", None, "1", "x", "2", "new")]
    assert "extra text" in loaded.tables_ddl


def test_a_third_of_the_patients_are_on_the_attending_physicians_team(tiny: Path) -> None:
    loaded = {t.table: list(t.rows) for t in synthea.source(tiny, random.Random(1), TODAY).tables}
    mine = {row[0] for row in loaded["care_team"] if row[1] == 1 and row[4] is None}
    assert len(mine) == 4
    assert {row[0] for row in loaded["care_team"]} == {f"p{n}" for n in range(12)}
    flagged = {row[0]: row[1] for row in loaded["patient_flag"]}
    assert sorted(flagged.values()) == ["employee", "vip", "vip"]
    assert {flag for key, flag in flagged.items() if key in mine} == {"vip"}


def test_only_codes_described_in_ordinary_words_are_drafted(tiny: Path) -> None:
    assert synthea.draft_reviewed_codes(tiny) == {"2"}


def test_the_copy_of_the_map_carries_the_drafted_codes(
    tiny: Path, tmp_path: Path, project_root: Path
) -> None:
    path = synthea.prepare_map(tiny, project_root / "maps", tmp_path / "state")
    assert path == tmp_path / "state" / "maps" / "synthea.toml"
    reviewed = synthea.read_codes((path.parent / "codesets" / "reviewed.txt").read_text())
    assert "2" in reviewed
    assert not {"1", "3", "4"} & set(reviewed)
    shipped = project_root / "maps" / "codesets" / "reviewed.txt"
    assert synthea.read_codes(shipped.read_text()) == []


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    "table", ["conditions", "procedures", "encounters", "careplans", "medications", "observations"]
)
def test_no_row_that_speaks_of_substance_use_or_violence_counts_as_ordinary(
    shared_dir: Path, project_root: Path, tmp_path: Path, name: str, table: str
) -> None:
    folder = shared_dir / "data" / name
    path = synthea.prepare_map(folder, project_root / "maps", tmp_path)
    reviewed = set(synthea.read_codes((path.parent / "codesets" / "reviewed.txt").read_text()))
    words = re.compile(
        r"alcohol|opioid|\bdrug|cocaine|overdose|abuse|suicid|depress|anxiety|hiv\b|pregnan|partner",
        re.IGNORECASE,
    )
    with gzip.open(folder / f"{table}.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            for code, text in (("CODE", "DESCRIPTION"), ("REASONCODE", "REASONDESCRIPTION")):
                if row.get(text) and words.search(row[text]):
                    assert row[code] not in reviewed, row[text]
