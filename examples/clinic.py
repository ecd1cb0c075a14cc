"""The clinic's own data, and what each field of it is: shared by the three applications.

The database is the demo hospital's, read by the clinic's own connection. Nothing in it knows of
policies; the labels below are all that the clinic says about its data. They follow the hospital's data
map (`maps/hospital.toml`), so that an app shows no more than the gate would.
"""

import base64
import hmac
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import class_row

from chartgate.adapters.state import State, default_root
from chartgate.sdk import KEY, Label, Record, disclosed, keep, of_object

ROW_LABELS = ("behavioral_health", "sud_part2", "repro_sti_hiv", "psychotherapy_notes")
"""What a single row may carry beside: asked about together with the fields."""


def initial(name: str) -> str:
    return f"{name[:1]}."


@disclosed(
    patient="patient_id",
    row="demographics",
    patient_id=KEY,
    first_name=Label("demographics", masked=initial),
    last_name=Label("demographics", masked=initial),
    birth_date=Label("demographics", masked=lambda born: born.year),
    phone=Label("demographics", masked=lambda phone: f"***-***-{phone[-4:]}"),
    mrn=Label("record_ids", masked=lambda mrn: f"***{mrn[-4:]}"),
    ssn=Label("gov_ids", masked=lambda ssn: f"***-**-{ssn[-4:]}"),
)
@dataclass(frozen=True)
class Patient:
    patient_id: int
    first_name: str
    last_name: str
    birth_date: date
    phone: str | None
    mrn: str
    ssn: str | None


@disclosed(
    patient="patient_id",
    row="labs",
    also=lambda lab: lab.labels(),
    lab_id=KEY,
    test=Label("labs", summary=keep, masked=lambda _: "[restricted]"),
    value=Label("labs", summary=of_object(lambda lab: lab.flag)),
    unit=Label("labs", summary=keep),
    resulted_at=Label("labs", summary=lambda at: at.date(), masked=lambda at: at.year),
)
@dataclass(frozen=True)
class Lab:
    lab_id: int
    patient_id: int
    department: str
    test_code: str | None
    test: str
    value: str | None
    unit: str | None
    flag: str
    resulted_at: datetime

    def labels(self) -> set[str]:
        sets = {"sud_part2": "sud_tests", "repro_sti_hiv": "sti_tests"}
        return by_place(self.department) | by_code(self.test_code, sets, "ordinary_tests")


@disclosed(
    patient="patient_id",
    row="notes",
    also=lambda note: note.labels(),
    note_id=KEY,
    kind=Label("notes", summary=keep, masked=keep),
    written_on=Label("notes", summary=keep, masked=lambda on: on.year),
    note_text=Label("notes", summary=of_object(lambda n: f"[{n.kind} note of {n.written_on}]")),
)
@dataclass(frozen=True)
class Note:
    note_id: int
    patient_id: int
    department: str
    diagnosis_code: str | None
    kind: str
    written_on: date
    note_text: str

    def labels(self) -> set[str]:
        sets = {"sud_part2": "sud", "repro_sti_hiv": "repro_sti_hiv"}
        sets["behavioral_health"] = "behavioral_health"
        talk = {"psychotherapy_notes"} if self.kind == "psychotherapy" else set()
        return talk | by_place(self.department) | by_code(self.diagnosis_code, sets, "ordinary")


def by_place(department: str) -> set[str]:
    return {"behavioral_health"} if department == "psychiatry" else set()


def by_code(code: str | None, sets: dict[str, str], ordinary: str) -> set[str]:
    """A code that nobody has looked at carries every label: the strictest."""
    found = {label for label, name in sets.items() if code in codes(name)}
    return found if found or code in codes(ordinary) else set(sets)


@cache
def codes(name: str) -> frozenset[str]:
    folder = Path(state().instance().data_map).parent / "codesets"
    lines = (folder / f"hospital_{name}.txt").read_text("utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def state() -> State:
    return State(default_root())


def rows(kind: type[Any], table: str, where: str, *values: Any) -> list[Any]:
    columns = ", ".join(kind.__dataclass_fields__)
    query: Any = f"SELECT {columns} FROM {table} WHERE {where} ORDER BY 1 LIMIT 100"
    with psycopg.connect(state().instance().legacy, row_factory=class_row(kind)) as link:
        return link.execute(query, values).fetchall()


def patients(last_name: str) -> list[Patient]:
    return rows(Patient, "patient", "last_name = %s", last_name)


def patient(key: str) -> Patient | None:
    return next(iter(rows(Patient, "patient", "patient_id::text = %s", key)), None)


def labs(key: str) -> list[Lab]:
    return rows(Lab, "lab_result", "patient_id::text = %s", key)


def notes(key: str) -> list[Note]:
    return rows(Note, "clinical_note", "patient_id::text = %s", key)


def visit(key: str, department: str) -> Record:
    """A new appointment, as it is asked about: the department that it names counts."""
    return Record(patient=key, category="scheduling", properties={"department": department})


def book(key: str, department: str, starts_at: datetime) -> int:
    """Write the appointment; nobody calls it who has not asked."""
    with psycopg.connect(state().instance().legacy) as link:
        made = link.execute(
            "INSERT INTO appointment (appointment_id, patient_id, department, provider_id, "
            "starts_at, minutes, visit_type, status) SELECT (SELECT max(appointment_id) + 1 FROM "
            "appointment), %s, %s, (SELECT min(staff_id) FROM staff WHERE department = %s), "
            "%s, 30, 'follow-up', 'booked' RETURNING appointment_id",
            (key, department, department, starts_at),
        ).fetchone()
    assert made is not None
    return int(made[0])


def signed_in(authorization: str | None) -> str | None:
    """HTTP Basic with the passwords of the demo's people; put your own sign-in in its place."""
    try:
        user, _, password = base64.b64decode((authorization or "")[6:]).decode().partition(":")
    except ValueError:
        return None
    for line in state().passfile.read_text("utf-8").splitlines():
        *_, name, right = line.split(":", 4)
        if name == user and hmac.compare_digest(right.encode(), password.encode()):
            return name
    return None
