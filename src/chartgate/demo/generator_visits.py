"""What happens to a made-up patient on one visit: notes, tests, drugs, measurements, charges.

Rule kept: pure, and every row carries the code it is about, so that what must be kept apart
(substance use, behavioural health, HIV) can be told from the rows as a hospital would have them.
"""

import random
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from chartgate.demo import generator_catalogue as catalogue
from chartgate.demo import people
from chartgate.demo.generator_catalogue import Diagnosis, Drug
from chartgate.demo.generator_schema import TABLES


@dataclass
class Patient:
    """What later rows need to know of a patient."""

    patient_id: int
    name: str
    age: int
    department: str
    registered: date
    team: tuple[people.StaffMember, people.StaffMember]
    about: str
    diagnoses: list[Diagnosis] = field(default_factory=list)
    account_id: int = 0
    due: float = 0.0
    must: Diagnosis | None = None
    """Diagnosis of the first visit, for patients made by hand."""


class Visit(NamedTuple):
    encounter_id: int
    department: str
    doctor: int
    nurse: int
    start: datetime
    code: str | None
    diagnosis: Diagnosis

    def place(self, person: Patient) -> tuple[int, int, str]:
        """The three columns that every row of a visit shares."""
        return person.patient_id, self.encounter_id, self.department


class Visits:
    """Appends rows; the only state is what has been made so far."""

    def __init__(self, rng: random.Random, today: date) -> None:
        self.rng = rng
        self.today = today
        self.rows: dict[str, list[tuple[object, ...]]] = {table.name: [] for table in TABLES}
        self.staff = {person.username: person for person in people.staff()}
        self.doctors = {name: people.physicians(name) for name in people.CLINICAL}
        self.nurses = {name: people.nurses(name) for name in people.CLINICAL}

    def add(self, table: str, *values: object) -> int:
        """Append a row under the next number, which is its key."""
        rows = self.rows[table]
        rows.append((len(rows) + 1, *values))
        return len(rows)

    def days_ago(self, most: int, least: int = 0) -> date:
        return self.today - timedelta(days=self.rng.randint(least, most))

    def visit(self, person: Patient, department: str, day: date) -> None:
        rng = self.rng
        at_home = department == person.department
        doctor = person.team[0] if at_home else rng.choice(self.doctors[department])
        nurse = person.team[1] if at_home else rng.choice(self.nurses[department])
        start = datetime.combine(day, time(rng.randrange(7, 19), rng.randrange(60)))
        stay = department != "psychiatry" and rng.random() < 0.12
        kind = "inpatient" if stay else "emergency" if department == "emergency" else "ambulatory"
        end = start + (timedelta(days=rng.randrange(1, 8)) if stay else timedelta(minutes=40))
        is_open = end.date() >= self.today
        diagnosis = self._diagnosis(person, department)
        # A few visits of old were never coded; what is unknown is treated as the strictest.
        code = None if rng.random() < 0.01 else diagnosis.code
        encounter_id = self.add(
            "encounter",
            person.patient_id,
            department,
            doctor.staff_id,
            kind,
            start,
            None if is_open else end,
            code,
            diagnosis.text,
            f"{department} {'ward' if stay else 'clinic'} {rng.randrange(1, 5)}",
        )
        visit = Visit(
            encounter_id, department, doctor.staff_id, nurse.staff_id, start, code, diagnosis
        )
        if diagnosis not in person.diagnoses:
            person.diagnoses.append(diagnosis)
            self.add(
                "condition",
                *visit.place(person),
                doctor.staff_id,
                code,
                diagnosis.text,
                "active" if rng.random() < 0.7 else "resolved",
                day,
                None,
            )
        self._notes(person, visit, stay=stay)
        self._labs(person, visit)
        self._drugs(person, visit)
        self._measure(person, visit)
        self._charges(person, visit, stay=stay)

    def _diagnosis(self, person: Patient, department: str) -> Diagnosis:
        rng = self.rng
        if person.must is not None:
            diagnosis, person.must = person.must, None
            return diagnosis
        if person.about == "substance use" and rng.random() < 0.45:
            return rng.choice(catalogue.SUD)
        if person.about in ("hiv", "intimate") and rng.random() < 0.45:
            return (
                catalogue.INTIMATE[0]
                if person.about == "hiv"
                else rng.choice(catalogue.INTIMATE[1:])
            )
        if department == "pediatrics" and person.age > 5 and rng.random() < 0.08:
            return rng.choice(catalogue.CHILD_MIND)
        known = [d for d in person.diagnoses if d in catalogue.DIAGNOSES[department]]
        if known and rng.random() < 0.7:
            return rng.choice(known)
        return rng.choice(catalogue.DIAGNOSES[department])

    def _notes(self, person: Patient, visit: Visit, *, stay: bool) -> None:
        rng = self.rng
        words = {
            "name": person.name,
            "age": str(person.age),
            "problem": visit.diagnosis.text.lower(),
            "feel": rng.choice(catalogue.FEELS),
            "often": rng.choice(catalogue.OFTENS),
        }
        texts = [
            (
                "progress",
                visit.doctor,
                f"{rng.choice(catalogue.PROGRESS)} {rng.choice(catalogue.PROGRESS_END)}",
            )
        ]
        if stay:
            texts.append(("nursing", visit.nurse, rng.choice(catalogue.NURSING)))
            texts.append(("discharge", visit.doctor, rng.choice(catalogue.DISCHARGE)))
        if visit.department == "psychiatry" and (
            person.about == "psychotherapy" or rng.random() < 0.4
        ):
            therapist = self.staff["bclinician"].staff_id
            texts.append(("psychotherapy", therapist, rng.choice(catalogue.THERAPY)))
        for kind, author, text in texts:
            self.add(
                "clinical_note",
                *visit.place(person),
                author,
                kind,
                visit.start.date(),
                visit.code,
                text.format(**words),
            )

    def _labs(self, person: Patient, visit: Visit) -> None:
        rng = self.rng
        if rng.random() < 0.5:
            panel = rng.choice(catalogue.PANELS[visit.department])
            order_id = self._order(person, visit, panel)
            for test in catalogue.TESTS[panel]:
                middle, width = (test.low + test.high) / 2, (test.high - test.low) / 2
                value = max(0.0, rng.gauss(middle, width * 0.75))
                flag = "low" if value < test.low else "high" if value > test.high else "normal"
                self._result(
                    person, visit, order_id, test.code, test.name,
                    f"{value:.{test.digits}f}", test.unit, f"{test.low:g}-{test.high:g}", flag,
                )  # fmt: skip
        special: tuple[tuple[str, str], ...] = ()
        if visit.diagnosis in catalogue.SUD:
            special = catalogue.SUD_TESTS
        elif visit.diagnosis in catalogue.INTIMATE[:3]:
            special = catalogue.STI_TESTS[:2] if person.about == "hiv" else catalogue.STI_TESTS[2:]
        if special:
            code, name = rng.choice(special)
            order_id = self._order(person, visit, name)
            found = rng.random() < 0.6
            self._result(
                person, visit, order_id, code, name,
                "positive" if found else "negative", None, "negative",
                "abnormal" if found else "normal",
            )  # fmt: skip

    def _order(self, person: Patient, visit: Visit, panel: str) -> int:
        return self.add(
            "lab_order",
            *visit.place(person),
            visit.doctor,
            visit.start,
            panel,
            self.rng.choice(("routine", "routine", "urgent")),
            "final",
            visit.code,
        )

    def _result(self, person: Patient, visit: Visit, order_id: int, *values: object) -> None:
        resulted = visit.start + timedelta(minutes=self.rng.randrange(40, 400))
        self.add("lab_result", order_id, *visit.place(person), visit.doctor, *values, resulted)

    def _drugs(self, person: Patient, visit: Visit) -> None:
        rng = self.rng
        choices: tuple[Drug, ...]
        if visit.diagnosis in catalogue.SUD:
            choices = catalogue.SUD_DRUGS
        elif visit.diagnosis in catalogue.INTIMATE[:3]:
            choices = catalogue.STI_DRUGS[:1] if person.about == "hiv" else catalogue.STI_DRUGS[1:]
        elif rng.random() < 0.5:
            choices = catalogue.DRUGS[visit.department]
        else:
            return
        drug = rng.choice(choices)
        day = visit.start.date()
        stopped = day + timedelta(days=rng.randrange(5, 90)) if rng.random() < 0.4 else None
        if stopped is not None and stopped > self.today:
            stopped = None
        self.add(
            "medication_order",
            *visit.place(person),
            visit.doctor,
            drug.code,
            drug.name,
            drug.dose,
            drug.frequency,
            day,
            stopped,
            "stopped" if stopped else "active",
            visit.code,
        )

    def _measure(self, person: Patient, visit: Visit) -> None:
        rng = self.rng
        child = person.age < 12
        self.add(
            "vital_sign",
            *visit.place(person),
            visit.nurse,
            visit.start + timedelta(minutes=5),
            round(rng.gauss(100 if child else 130, 12)),
            round(rng.gauss(62 if child else 80, 8)),
            round(rng.gauss(95 if child else 74, 10)),
            f"{rng.gauss(36.8, 0.4):.1f}",
            min(100, round(rng.gauss(97, 1.5))),
            f"{max(3.0, rng.gauss(4 + person.age * 3 if child else 78, 2 if child else 14)):.1f}",
        )
        if rng.random() < 0.1:
            modality, site, findings, impression = rng.choice(catalogue.IMAGING)
            number = len(self.rows["imaging_report"]) + 1
            self.add(
                "imaging_report",
                *visit.place(person),
                visit.doctor,
                f"ACN-{700_000 + number}",
                modality,
                site,
                visit.start + timedelta(minutes=90),
                visit.code,
                findings,
                impression,
            )

    def _charges(self, person: Patient, visit: Visit, *, stay: bool) -> None:
        rng = self.rng
        lines = [("SV-100", "Visit", 90, 260)]
        if stay:
            lines.append(("SV-300", "Stay", 2200, 14_000))
        if rng.random() < 0.3:
            lines.append(("SV-200", "Laboratory", 25, 180))
        for code, text, low, high in lines:
            amount = round(rng.uniform(low, high), 2)
            paid = round(amount * rng.choice((0.8, 0.8, 0.9, 0.0)), 2)
            due = round(amount - paid, 2)
            settled = rng.random() < 0.7
            if not settled:
                person.due = round(person.due + due, 2)
            self.add(
                "charge",
                person.account_id,
                *visit.place(person),
                visit.start.date(),
                code,
                f"{text}, {visit.department}",
                visit.code,
                f"{amount:.2f}",
                f"{paid:.2f}",
                f"{0 if settled else due:.2f}",
                "settled" if settled else "billed",
            )
