"""A made-up hospital of any size, the same for the same seed and day.

Rule kept: pure. Randomness and the day come in as arguments, so a demo, a test and a bug report
speak of the same rows. The first patients are made by hand: their record numbers stand in the
demo's text and in scenarios.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from chartgate.demo import generator_catalogue as catalogue
from chartgate.demo import names, people
from chartgate.demo.generator_visits import Patient, Visits


class HandMade(NamedTuple):
    """A patient that texts speak of by record number."""

    mrn: str
    first_name: str
    last_name: str
    sex: str
    age: int
    department: str
    attending: str
    about: str
    flag: str | None = None
    ended: bool = False
    second_department: str | None = None


HAND_MADE = (
    HandMade("MRN-100001", "Arthur", "Pelham", "M", 67, "cardiology", "mwelby", "ordinary"),
    HandMade("MRN-100002", "Victoria", "Sterling", "F", 58, "cardiology", "mwelby",
             "vip on the team", "vip"),
    HandMade("MRN-100003", "Magnus", "Delacroix", "M", 61, "oncology", "oncdoc",
             "vip elsewhere", "vip"),
    HandMade("MRN-100004", "Joan", "Kessler", "F", 44, "cardiology", "other",
             "employee of the hospital", "employee"),
    HandMade("MRN-100005", "Desmond", "Okafor", "M", 39, "cardiology", "mwelby", "substance use"),
    HandMade("MRN-100006", "Elena", "Navarro", "F", 35, "psychiatry", "bclinician",
             "psychotherapy", second_department="cardiology"),
    HandMade("MRN-100007", "Simon", "Whitlock", "M", 42, "cardiology", "mwelby", "hiv"),
    HandMade("MRN-100008", "Clara", "Lindgren", "F", 73, "cardiology", "other", "a colleague's"),
    HandMade("MRN-100009", "Otto", "Brandt", "M", 80, "cardiology", "mwelby",
             "relationship has ended", ended=True),
    HandMade("MRN-100010", "Mina", "Shah", "F", 7, "pediatrics", "other", "child"),
)  # fmt: skip

_SHARES = (
    ("cardiology", 16),
    ("oncology", 12),
    ("emergency", 25),
    ("psychiatry", 10),
    ("surgery", 17),
    ("pediatrics", 20),
)
_MUST = {"substance use": catalogue.SUD[1], "hiv": catalogue.INTIMATE[0]}
_VIP_SHARE, _EMPLOYEE_SHARE, _SUD_SHARE, _INTIMATE_SHARE = 0.006, 0.008, 0.06, 0.04
_ENDED_SHARE = 0.15


@dataclass(frozen=True)
class Hospital:
    """Rows by table, in the order in which they can be loaded."""

    today: date
    rows: Mapping[str, Sequence[tuple[object, ...]]]


def generate(rng: random.Random, today: date, *, patients: int = 2400) -> Hospital:
    """The whole hospital. ``today`` is the last day on which anything has happened."""
    if patients < len(HAND_MADE):
        raise ValueError(f"at least {len(HAND_MADE)} patients")
    made = _Maker(rng, today)
    made.directory()
    departments = [name for name, share in _SHARES for _ in range(share)]
    for number in range(patients):
        if number < len(HAND_MADE):
            made.patient(number, HAND_MADE[number].department, HAND_MADE[number])
        else:
            made.patient(number, rng.choice(departments), None)
    return Hospital(today, made.rows)


class _Maker(Visits):
    """Makes the directory and one patient after another."""

    def phone(self, area: str) -> str:
        return f"{area}-555-{self.rng.randrange(10_000):04d}"

    def directory(self) -> None:
        for number, department in enumerate(people.DEPARTMENTS):
            self.rows["department"].append((*department, f"617-555-01{number:02d}"))
        for person in people.staff():
            self.rows["staff"].append(
                (
                    *person,
                    f"{person.username}@hospital.example",
                    self.phone("617"),
                    self.days_ago(5000, 200),
                    True,
                )
            )

    def patient(self, number: int, department: str, by_hand: HandMade | None) -> None:
        rng = self.rng
        sex = by_hand.sex if by_hand else rng.choice("FM")
        first = by_hand.first_name if by_hand else rng.choice(_first_names(sex))
        last = by_hand.last_name if by_hand else rng.choice(names.FAMILY)
        age = by_hand.age if by_hand else self._age(department)
        birth = self.today - timedelta(days=age * 365 + age // 4 + rng.randrange(1, 364))
        flag = by_hand.flag if by_hand else self._flag()
        town, zip_code, area = rng.choice(names.TOWNS)
        registered = max(birth, self.days_ago(3600, 400))
        team = self._team(department, by_hand)
        deceased = None
        if by_hand is None and age > 60 and rng.random() < 0.03:
            deceased = self.days_ago(200, 20)
        patient_id = self.add(
            "patient",
            f"MRN-{100_001 + number}",
            # Areas from 900 on were never given to a person.
            f"9{rng.randrange(100):02d}-{rng.randrange(10, 50)}-{rng.randrange(1, 10_000):04d}"
            if rng.random() < 0.95
            else None,
            last,
            first,
            f"Guest {rng.choice(names.STREETS)}" if flag == "vip" else None,
            birth,
            sex,
            rng.choice(("single", "married", "married", "divorced", "widowed"))
            if age > 20
            else None,
            rng.choice(names.LANGUAGES),
            f"{rng.randrange(1, 400)} {rng.choice(names.STREETS)} {rng.choice(names.STREET_KINDS)}",
            town,
            "MA",
            zip_code,
            self.phone(area),
            f"{first}.{last}{number}@mail.example".lower() if rng.random() < 0.8 else None,
            ("City hospital" if flag == "employee" else rng.choice(names.EMPLOYERS))
            if 18 <= age < 90
            else None,
            f"{rng.choice(names.MALE + names.FEMALE)} {last}",
            self.phone(area),
            team[0].staff_id,
            department,
            deceased,
            registered,
        )
        if flag:
            self.add("patient_flag", patient_id, flag, registered)
        about = by_hand.about if by_hand else self._about(age)
        person = Patient(patient_id, f"{first} {last}", age, department, registered, team, about)
        if by_hand:
            person.must = _MUST.get(by_hand.about)
        self._care_team(person, by_hand)
        self._coverage(person, f"{first} {last}")
        self._history(person, deceased, by_hand)

    def _age(self, department: str) -> int:
        rng = self.rng
        if department == "pediatrics":
            return rng.randrange(18)
        if department == "cardiology":
            return min(97, max(25, round(rng.gauss(66, 13))))
        if department == "oncology":
            return min(96, max(22, round(rng.gauss(61, 14))))
        return min(95, max(18, round(rng.triangular(18, 95, 40))))

    def _flag(self) -> str | None:
        chance = self.rng.random()
        if chance < _VIP_SHARE:
            return "vip"
        return "employee" if chance < _VIP_SHARE + _EMPLOYEE_SHARE else None

    def _about(self, age: int) -> str:
        chance = self.rng.random()
        if age >= 16 and chance < _SUD_SHARE:
            return "substance use"
        if age >= 16 and chance < _SUD_SHARE + _INTIMATE_SHARE:
            return "hiv" if chance < _SUD_SHARE + _INTIMATE_SHARE / 4 else "intimate"
        return "ordinary"

    def _team(
        self, department: str, by_hand: HandMade | None
    ) -> tuple[people.StaffMember, people.StaffMember]:
        rng = self.rng
        nurse = rng.choice(self.nurses[department])
        if by_hand is None:
            return rng.choice(self.doctors[department]), nurse
        if by_hand.attending == "other":
            others = [p for p in self.doctors[department] if p.username != "mwelby"]
            return others[0], self.nurses[department][-1]
        if by_hand.attending == "bclinician":
            return self.doctors["psychiatry"][0], nurse
        if by_hand.department == "cardiology":
            nurse = self.staff["nadams"]
        return self.staff[by_hand.attending], nurse

    def _care_team(self, person: Patient, by_hand: HandMade | None) -> None:
        rng = self.rng
        doctor, nurse = person.team
        ended = by_hand.ended if by_hand else rng.random() < _ENDED_SHARE
        until = self.days_ago(300, 30) if ended else None
        since = max(person.registered, self.days_ago(900, 320))
        for member, role in ((doctor, "attending"), (nurse, "nurse")):
            self.add("care_team", person.patient_id, member.staff_id, role, since, until)
        if by_hand is not None and by_hand.about == "psychotherapy":
            for username, role in (("bclinician", "therapist"), ("mwelby", "attending")):
                member = self.staff[username]
                self.add("care_team", person.patient_id, member.staff_id, role, since, None)
        elif person.department == "psychiatry" and rng.random() < 0.5:
            therapist = self.staff["bclinician"]
            self.add("care_team", person.patient_id, therapist.staff_id, "therapist", since, until)

    def _coverage(self, person: Patient, subscriber: str) -> None:
        rng = self.rng
        if rng.random() < 0.93:
            payer, plan = rng.choice(names.PAYERS)
            self.add(
                "insurance_coverage",
                person.patient_id,
                payer,
                plan,
                f"{payer[0]}{rng.randrange(10**9):09d}",
                f"G{rng.randrange(10**5):05d}",
                subscriber,
                max(person.registered, self.days_ago(1200, 330)),
                None,
                f"{rng.choice((10, 20, 25, 40))}.00",
            )
        # The balance is known once all charges are made; the row is completed then.
        person.account_id = len(self.rows["billing_account"]) + 1
        self.rows["billing_account"].append(())

    def _history(self, person: Patient, deceased: date | None, by_hand: HandMade | None) -> None:
        rng = self.rng
        last = deceased or self.today
        span = max(1, min((last - person.registered).days, 1100))
        visits = sorted(
            last - timedelta(days=rng.randrange(span))
            for _ in range(min(14, 1 + int(rng.expovariate(0.35))) + (3 if by_hand else 0))
        )
        for index, day in enumerate(visits):
            department = person.department
            if by_hand and by_hand.second_department and index % 2:
                department = by_hand.second_department
            elif by_hand is None and department != "pediatrics" and rng.random() < 0.15:
                department = rng.choice(("emergency", "emergency", "cardiology", "surgery"))
            self.visit(person, department, day)
        if rng.random() < 0.25:
            substance, reaction = rng.choice(catalogue.ALLERGENS)
            severity = rng.choice(("mild", "moderate", "severe"))
            noted = self.days_ago(2000, 30)
            self.add("allergy", person.patient_id, substance, reaction, severity, noted)
        for code, vaccine in rng.sample(catalogue.VACCINES, rng.randrange(4)):
            self.add(
                "immunization",
                person.patient_id,
                person.department,
                person.team[1].staff_id,
                code,
                vaccine,
                self.days_ago(min(1500, (self.today - person.registered).days), 0),
                f"L{rng.randrange(10**6):06d}",
            )
        if person.department in ("oncology", "cardiology") and rng.random() < 0.15:
            self.add(
                "genetic_test",
                person.patient_id,
                person.department,
                person.team[0].staff_id,
                rng.choice(catalogue.GENES),
                rng.choice(catalogue.GENE_RESULTS),
                self.days_ago(900, 5),
            )
        if deceased is None and (by_hand or rng.random() < 0.55):
            self._appointment(person)
        self.rows["billing_account"][person.account_id - 1] = (
            person.account_id,
            person.patient_id,
            f"ACC-{500_000 + person.account_id}",
            person.name,
            "open" if person.due > 0 else "settled",
            f"{person.due:.2f}",
            person.registered,
        )

    def _appointment(self, person: Patient) -> None:
        rng = self.rng
        day = self.today + timedelta(days=rng.randint(-20, 60))
        self.add(
            "appointment",
            person.patient_id,
            person.department,
            person.team[0].staff_id,
            datetime.combine(day, time(rng.randrange(8, 17), rng.choice((0, 15, 30, 45)))),
            rng.choice((15, 30, 45)),
            rng.choice(("follow-up", "follow-up", "new patient", "procedure")),
            ("done" if day < self.today else "booked") if rng.random() < 0.9 else "cancelled",
            rng.choice((None, None, "asks for an interpreter", "comes by taxi")),
        )


def _first_names(sex: str) -> tuple[str, ...]:
    return names.FEMALE if sex == "F" else names.MALE
