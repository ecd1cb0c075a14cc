"""Synthea's CSV files as a hospital: its tables unchanged, plus the people who work there.

Rule kept: the files are the real input and are not bent; what they lack (staff, departments, care
teams, flagged patients) is added in tables of its own, the same for the same files and day. A code
counts as ordinary only if it is described and nothing in the description speaks of substance use,
mental health, violence or reproduction: what is left over takes the strictest labels.
"""

import csv
import gzip
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import IO

from chartgate.demo import people
from chartgate.demo.legacy import Source, TableRows
from chartgate.demo.synthea_layout import SMART_R4, SPECIAL_WORDS, SYNTHEA, Layout
from chartgate.errors import Misconfigured

_DESCRIBED = (
    ("code", "description"),
    ("reasoncode", "reasondescription"),
    ("procedurecode", "notes"),
    ("reaction1", "description1"),
    ("reaction2", "description2"),
    ("bodysite_code", "bodysite_description"),
)
# A SNOMED description ends with the kind of thing it is: "Latex (substance)" is no substance use.
_TAG = re.compile(r"\((?:substance|procedure|finding|disorder|situation|event)\)\s*$")
_SPECIAL = re.compile(SPECIAL_WORDS, re.IGNORECASE)

_ADDED_DDL = """
CREATE TABLE department (code text PRIMARY KEY, name text NOT NULL, kind text NOT NULL,
    floor integer NOT NULL);
CREATE TABLE staff (staff_id integer PRIMARY KEY, username text NOT NULL UNIQUE,
    full_name text NOT NULL, title text NOT NULL,
    department text NOT NULL REFERENCES department);
CREATE TABLE care_team (patient text NOT NULL, staff_id integer NOT NULL REFERENCES staff,
    department text NOT NULL REFERENCES department, since date NOT NULL, until date);
CREATE TABLE patient_flag (patient text NOT NULL, flag text NOT NULL, since date NOT NULL);
"""


class UnknownData(Misconfigured):
    """The folder is not Synthea CSV in a layout that we know; the message says what is missing."""

    code = "unknown_data"


def source(folder: Path, rng: random.Random, today: date) -> Source:
    """Everything to load from ``folder``; raises ``UnknownData`` before anything is created."""
    layout = detect_layout(folder)
    headers = {name: _header(folder, layout, name) for name in layout.tables}
    patients = sorted(row[0] or "" for row in _rows(folder, "patients", ("id",)))
    if not patients:
        raise UnknownData(f"{folder}: the table patients is empty")
    tables = [
        TableRows(name, header, _rows(folder, name, header)) for name, header in headers.items()
    ]
    return Source(
        name=layout.name,
        title=layout.title,
        tables_ddl=_ddl(layout, headers) + _ADDED_DDL,
        tables=[*tables, *_added(patients, rng, today)],
        keys_ddl=_keys(headers),
    )


def detect_layout(folder: Path) -> Layout:
    """Which layout a folder holds, by its files and the columns of its patients."""
    if not folder.is_dir():
        raise UnknownData(f"{folder} is not a folder")
    if _find(folder, "patients") is None:
        raise UnknownData(f"{folder} holds no patients.csv or patients.csv.gz: not Synthea CSV")
    with _open(folder, "patients") as file:
        columns = _names(next(csv.reader(file), []))
    # Only the flattened set has a record number.
    layout = SMART_R4 if "mrn" in columns else SYNTHEA
    missing = sorted(name for name in layout.required if _find(folder, name) is None)
    if missing:
        raise UnknownData(f"{folder}: no file for the table {missing[0]} ({layout.title} layout)")
    return layout


def draft_reviewed_codes(folder: Path) -> set[str]:
    """Codes of these files that are described, every time, in words of ordinary medicine."""
    described: set[str] = set()
    special: set[str] = set()
    for name in detect_layout(folder).tables:
        if _find(folder, name) is None:
            continue
        with _open(folder, name) as file:
            reader = csv.reader(file)
            columns = _names(next(reader, []))
            pairs = [
                (columns.index(code), columns.index(text))
                for code, text in _DESCRIBED
                if code in columns and text in columns
            ]
            for row in reader:
                for code_at, text_at in pairs:
                    code, text = row[code_at], row[text_at]
                    if code and text:
                        described.add(code)
                        if _SPECIAL.search(_TAG.sub("", text)):
                            special.add(code)
    return described - special


def prepare_map(folder: Path, maps: Path, state: Path) -> Path:
    """Copy the data map for ``folder`` to ``state/maps``, with reviewed codes drafted beside it.

    The path of the copy is what the gateway loads. ``maps`` is the folder of shipped maps.
    """
    name = detect_layout(folder).name
    target = state / "maps" / f"{name}.toml"
    codes = target.parent / "codesets"
    codes.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(maps / target.name, target)
    ordinary: set[str] = set()
    special: set[str] = set()
    for path in sorted((maps / "codesets").glob("synthea_*.txt")):
        shutil.copyfile(path, codes / path.name)
        listed = set(read_codes(path.read_text("utf-8")))
        if path.name == "synthea_ordinary.txt":
            ordinary |= listed
        else:
            special |= listed
    reviewed = sorted((draft_reviewed_codes(folder) | ordinary) - special)
    (codes / "reviewed.txt").write_text(
        "# Drafted from descriptions when the demo was loaded; for real data, a person reviews.\n"
        + "".join(f"{code}\n" for code in reviewed),
        "utf-8",
    )
    return target


def read_codes(text: str) -> list[str]:
    """The codes of a code-set file: one a line, comments after ``#``."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _find(folder: Path, table: str) -> Path | None:
    paths = (folder / f"{table}.csv", folder / f"{table}.csv.gz")
    return next((path for path in paths if path.is_file()), None)


def _open(folder: Path, table: str) -> IO[str]:
    path = _find(folder, table)
    assert path is not None
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _names(header: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in header]


def _header(folder: Path, layout: Layout, table: str) -> tuple[str, ...]:
    known = layout.tables[table]
    if _find(folder, table) is None:
        return tuple(known)
    with _open(folder, table) as file:
        columns = _names(next(csv.reader(file), []))
    for column in known:
        if column not in columns:
            raise UnknownData(
                f"{folder}: the table {table} has no column {column} ({layout.title} layout)"
            )
    if len(set(columns)) != len(columns) or not all(
        re.fullmatch(r"[a-z_][a-z0-9_]*", name) for name in columns
    ):
        raise UnknownData(f"{folder}: the table {table} has an unusable column name")
    return tuple(columns)


def _rows(folder: Path, table: str, columns: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
    if _find(folder, table) is None:
        return
    with _open(folder, table) as file:
        reader = csv.reader(file)
        found = _names(next(reader, []))
        places = [found.index(name) for name in columns]
        for number, row in enumerate(reader, start=2):
            if len(row) != len(found):
                raise UnknownData(f"{folder}: {table}, line {number}: wrong number of fields")
            yield tuple(row[place] or None for place in places)


def _ddl(layout: Layout, headers: dict[str, tuple[str, ...]]) -> str:
    return "".join(
        f"CREATE TABLE {name} (\n"
        + ",\n".join(
            f"    {column} {layout.tables[name].get(column, 'text')}" for column in columns
        )
        + "\n);\n"
        for name, columns in headers.items()
    )


def _keys(headers: dict[str, tuple[str, ...]]) -> str:
    lines = ["ALTER TABLE patients ADD PRIMARY KEY (id);"]
    lines += [
        f"CREATE INDEX ON {name} ({column});"
        for name, columns in headers.items()
        for column in ("id", "patient", "patientid", "encounter")
        if column in columns and (name, column) != ("patients", "id")
    ]
    lines += [
        f"ALTER TABLE {name} ADD FOREIGN KEY (patient) REFERENCES patients;\n"
        f"CREATE INDEX ON {name} (patient);"
        for name in ("care_team", "patient_flag")
    ]
    return "\n".join(lines) + "\n"


def _added(patients: Sequence[str], rng: random.Random, today: date) -> list[TableRows]:
    """Staff, departments, care teams and flags: every third patient is on Dr Welby's panel."""
    members = {person.username: person for person in people.staff()}
    others = [name for name in people.CLINICAL if name not in ("cardiology", "pediatrics")]
    team: list[tuple[object, ...]] = []

    def join(patient: str, member: people.StaffMember, *, ended: bool = False) -> None:
        since = today - timedelta(days=rng.randint(200, 900))
        until = today - timedelta(days=rng.randint(20, 150)) if ended else None
        team.append((patient, member.staff_id, member.department, since, until))

    for index, patient in enumerate(patients):
        if index % 3 == 0:
            join(patient, members["mwelby"])
            join(patient, members["nadams"])
        else:
            # The third in three shares Dr Welby's department without being his patient.
            department = "cardiology" if index % 6 == 4 else rng.choice(others)
            doctors = people.physicians(department)
            join(patient, rng.choice([p for p in doctors if p.username != "mwelby"]))
            join(patient, rng.choice(people.nurses(department)))
            if index % 9 == 5:
                join(patient, members["mwelby"], ended=True)
        if rng.random() < 0.4:
            second = rng.choice(others)
            join(patient, rng.choice(people.physicians(second)))
            if second == "psychiatry":
                join(patient, members["bclinician"])
    since = today - timedelta(days=400)
    flags = list(zip(patients, ("vip", "vip", "employee"), strict=False))
    return [
        TableRows("department", ("code", "name", "kind", "floor"), people.DEPARTMENTS),
        TableRows("staff", people.StaffMember._fields, people.staff()),
        TableRows("care_team", ("patient", "staff_id", "department", "since", "until"), team),
        TableRows(
            "patient_flag",
            ("patient", "flag", "since"),
            [(patient, flag, since) for patient, flag in flags],
        ),
    ]
