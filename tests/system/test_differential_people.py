"""What each person gets through the gate, cell by cell, is what the policy text says of each row.

Two ways to one answer. The gate turns policy into SQL. This test reads the raw tables as superuser,
works out in plain Python what each row is (who treats the patient, which codes it holds), asks the
reference evaluator for the level of every cell, and applies its own table of masks. The two share
the policies, the code sets and the rows, and nothing else.
"""

import re
import threading
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chartgate.app.levels import Asking, level_of
from chartgate.cedar.ast import PolicySet
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env, evaluate
from chartgate.cedar.values import CedarSet, DateTime, RecordValue, Value
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import EntityUid

pytestmark = [pytest.mark.system, pytest.mark.slow]

# (person, purpose claimed; None = her role's own)
VISITS = [
    ("mwelby", None),
    ("nadams", None),
    ("rpatel", None),
    ("bcoder", None),
    ("pofficer", None),
    ("ddba", None),
    ("mwelby", "HPAYMT"),
    ("rpatel", "HPAYMT"),
    ("bclinician", None),
    ("annself", None),
    ("annmother", None),
    ("annmother", "PWATRNY"),
    ("researcher", None),
    ("qanalyst", None),
    ("labtech", None),
    ("radiologist", None),
    ("hrecords", None),
    ("hrecords", "HLEGAL"),
]
DEFAULTS = {
    "mwelby": "TREAT", "nadams": "TREAT", "rpatel": "PATADMIN", "bcoder": "HPAYMT",
    "pofficer": "HCOMPL", "ddba": "HSYSADMIN", "bclinician": "TREAT", "annself": "PATRQT",
    "annmother": "FAMRQT", "researcher": "HRESCH", "qanalyst": "HQUALIMP", "labtech": "TREAT",
    "radiologist": "TREAT", "hrecords": "RECORDMGT",
}  # fmt: skip
CODE_SETS = {
    "synthea": {"": ("synthea_sud", "synthea_behavioral_health", "synthea_repro_sti_hiv", "reviewed")},
    "hospital": {
        "": ("hospital_sud", "hospital_behavioral_health", "hospital_repro_sti_hiv", "hospital_ordinary"),
        "tests": ("hospital_sud_tests", None, "hospital_sti_tests", "hospital_ordinary_tests"),
        "drugs": ("hospital_sud_drugs", "hospital_behavioral_drugs", "hospital_sti_drugs",
                  "hospital_ordinary_drugs"),
    },
}  # fmt: skip
# The names of the same things in the two kinds of hospital.
SYNTHEA = {
    "patients": "patients", "id": "id", "gender": "gender", "birthdate": "birthdate",
    "conditions": "conditions", "patient": "patient", "description": "description",
    "start": "start", "claims": "claims",
}  # fmt: skip
HOSPITAL = {
    "patients": "patient", "id": "patient_id", "gender": "sex", "birthdate": "birth_date",
    "conditions": "condition", "patient": "patient_id", "description": "description",
    "start": "onset_on", "claims": "charge",
}  # fmt: skip
SPECIAL = ("sud_part2", "behavioral_health", "repro_sti_hiv")


def months(day: date, back: int) -> date:
    return day.replace(year=day.year - back)


FORMS: dict[str, Callable[[Any], Any]] = {
    "keep": lambda v: v,
    "month": lambda v: (
        v.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        if isinstance(v, datetime)
        else v.replace(day=1)
    ),
    "hundreds": lambda v: (v / 100).quantize(Decimal(1), ROUND_HALF_UP) * 100,
    "day": lambda v: v.replace(hour=0, minute=0, second=0, microsecond=0),
    "birth": lambda v: v.replace(month=1, day=1) if v > months(date.today(), 90) else None,
    "initial": lambda v: v[:1] + ".",
    "tail": lambda v: "***" + v[-4:],
    "ssn": lambda v: "***-**-" + v[-4:],
    "phone": lambda v: "***-***-" + v[-4:],
    "email": lambda v: v[:1] + "***@***",
    "elsewhere": lambda v: v if v != "psychiatry" else None,
}
CONSTANTS = {
    "restricted": "[restricted]",
    "service": "Service",
    "protected": "protected",
    "appointment": "appointment",
}


@dataclass(frozen=True)
class Pseudonym:
    """Stands for any pseudonym: which one, is for the session to choose."""

    domain: str
    value: Any


@dataclass(frozen=True)
class Column:
    category: str
    domain: str | None = None
    summary: str | None = None
    masked: str | None = None


@dataclass(frozen=True)
class Shape:
    row_category: str
    patient: str | None
    codes: tuple[str, ...]
    of: dict[str, str]
    columns: dict[str, Column]


def shapes(text: str) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for line in (line for line in text.splitlines() if line and line[0] != "#"):
        if not line.startswith(" "):
            name, category, patient, *rest = line.split()
            of = dict(word.split("=") for word in rest if "=" in word)
            codes = [word for word in rest if "=" not in word]
            columns: dict[str, Column] = {}
            found[name] = Shape(
                category, None if patient == "-" else patient, tuple(codes), of, columns
            )
            continue
        for spec in line.split(";"):
            column, category, *forms = spec.split()
            summary, masked = ([None if f == "-" else f for f in forms] + [None, None])[:2]
            category, _, domain = category.partition(":")
            columns[column] = Column(category, domain or None, summary, masked)
    return found


class World:
    """The raw rows, and what Python makes of them."""

    def __init__(self, gate: Any, text: str) -> None:
        self.gate = gate
        self.shapes = shapes(text)
        with gate.connect("bcoder") as connection:
            self.zone = connection.execute("SHOW TimeZone").fetchone()[0]
        with gate.admin() as raw:
            raw.execute(f"SET TimeZone = '{self.zone}'")
            self.rows = {name: self._table(raw, name) for name in self.shapes}
            self.is_hospital = "encounter" in self.rows
            queued = ("lab_order", "imaging_report") if self.is_hospital else ("medications",)
            orders = {name: self._table(raw, name) for name in queued}
        self.keys: dict[str, set[Any]] = defaultdict(set)
        for name, shape in self.shapes.items():
            for column, label in shape.columns.items():
                if label.domain is not None:
                    self.keys[label.domain] |= {row[column] for row in self.rows[name]}
        self.staff = {row["staff_id"]: row for row in self.rows["staff"]}
        self.patients = "patient" if self.is_hospital else "patients"
        self.departments: dict[Any, set[str]] = defaultdict(set)
        self.queues: dict[Any, set[str]] = defaultdict(set)
        self.team: dict[Any, set[str]] = defaultdict(set)
        for row in self.rows["care_team"]:
            until = row["valid_until"] if self.is_hospital else row["until"]
            if until is None or until >= date.today():
                self.team[self.patient("care_team", row)].add(
                    self.staff[row["staff_id"]]["username"]
                )
            if not self.is_hospital:
                self.departments[row["patient"]].add(row["department"])
        if self.is_hospital:
            for row in self.rows["encounter"]:
                self.departments[row["patient_id"]].add(row["department"])
            fresh = date.today() - timedelta(days=30)
            for row in self.rows["medication_order"]:
                if row["status"] == "active":
                    self.departments[row["patient_id"]].add("pharmacy")
                    self.queues[row["patient_id"]].add("pharmacy")
            for row in orders["lab_order"]:
                if row["status"] != "final" or row["ordered_at"].date() >= fresh:
                    self.queues[row["patient_id"]].add("laboratory")
            for row in orders["imaging_report"]:
                if row["performed_at"].date() >= fresh:
                    self.queues[row["patient_id"]].add("radiology")
        else:
            for row in orders["medications"]:
                # two spellings of "still being taken"
                if row["status"] == "active" if "status" in row else row["stop"] is None:
                    self.queues[row["patient"]].add("pharmacy")
        key, born = ("patient_id", "birth_date") if self.is_hospital else ("id", "birthdate")
        self.ages = {row[key]: age_bands(row[born]) for row in self.rows[self.patients]}
        self.protected = {
            self.patient("patient_flag", row)
            for row in self.rows["patient_flag"]
            if row["flag"] in ("vip", "employee")
        }
        folder = gate.state.root / "maps" / "codesets"
        self.codes = {
            kind: (
                {s: _codes(folder, f) for s, f in zip(SPECIAL, files, strict=False) if f},
                _codes(folder, files[-1]),
            )
            for kind, files in CODE_SETS["hospital" if self.is_hospital else "synthea"].items()
        }

    def patient(self, table: str, row: dict[str, Any]) -> Any:
        """Whom the row is about."""
        column = self.shapes[table].patient
        return None if column is None else row[column]

    def _table(self, raw: psycopg.Connection[Any], name: str) -> list[dict[str, Any]]:
        with raw.cursor() as cursor:
            cursor.execute(f'SELECT * FROM public."{name}"'.encode())
            names = [c.name for c in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def labels(self, table: str, row: dict[str, Any]) -> set[str]:
        """What the row carries beside its columns' categories."""
        shape = self.shapes[table]
        found: set[str] = set()
        if self.patient(table, row) in self.protected:
            found.add("protected_person")
        for name in shape.codes:
            column, _, kind = name.removesuffix("?").partition("@")
            sets, ordinary = self.codes[kind]
            holding = {label for label, codes in sets.items() if row[column] in codes}
            if row[column] is None:
                found |= set() if name.endswith("?") else set(sets)
            else:
                found |= holding or (set() if row[column] in ordinary else set(sets))
        member = self.staff.get(row.get(shape.of.get("member", "")))
        if "psychiatry" in (
            row.get(shape.of.get("department", "")),
            (member or {}).get("department"),
        ):
            found.add("behavioral_health")
        if table == "clinical_note" and row["kind"] == "psychotherapy":
            found.add("psychotherapy_notes")
        return found

    def record(self, table: str, row: dict[str, Any]) -> dict[str, Value]:
        """The row as policies see it."""
        patient, of = self.patient(table, row), self.shapes[table].of
        found: dict[str, Value] = {
            "departments": CedarSet.of(
                EntityUid("Department", d) for d in self.departments.get(patient, ())
            ),
            "care_team": CedarSet.of(EntityUid("User", u) for u in self.team.get(patient, ())),
            "queues": CedarSet.of(EntityUid("Department", d) for d in self.queues.get(patient, ())),
            "age_bands": CedarSet.of(EntityUid("AgeBand", b) for b in self.ages.get(patient, ())),
        }
        if patient is not None:
            found["patient"] = EntityUid("Patient", str(patient))
        if "department" in of and row[of["department"]] is not None:
            found["department"] = EntityUid("Department", row[of["department"]])
        if "author" in of and row[of["author"]] is not None:
            found["author"] = EntityUid("User", self.staff[row[of["author"]]]["username"])
        return found


def age_bands(born: date | None) -> set[str]:
    """Under 12, 12 to 17, 18 and over, today; who was born on 29 February waits for 1 March."""
    today = date.today()
    if born is None or born > today:
        return set()

    def birthday(number: int) -> date:
        try:
            return born.replace(year=born.year + number)
        except ValueError:
            return date(born.year + number, 3, 1)

    return {
        "adult" if birthday(18) <= today else "adolescent" if birthday(12) <= today else "child"
    }


def _codes(folder: Path, name: str) -> set[str]:
    text = (folder / f"{name}.txt").read_text("utf-8")
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {line for line in lines if line}


class Person:
    """One person, for one purpose: what the reference evaluator lets her see."""

    def __init__(self, world: World, name: str, purpose: str | None) -> None:
        self.world = world
        policies = Path(world.gate.ready.instance.policies)
        roles = tomllib.loads((policies / "roles.toml").read_text())["roles"]
        purposes = tomllib.loads((policies / "purposes.toml").read_text())
        with world.gate.control() as control:
            live = control.snapshot().persons[name].live(at=datetime.now(UTC))
        entities = [
            Entity(EntityUid("Role", role), parents=_all("Role", spec["parents"]))
            for role, spec in roles.items()
        ]
        entities += [
            Entity(EntityUid("Purpose", p), parents=_all("Purpose", up))
            for p, up in purposes.items()
        ]
        attributes = RecordValue(
            {
                "departments": CedarSet.of(
                    EntityUid("Department", a.department) for a in live if a.department
                ),
                "references": CedarSet.of(a.reference for a in live if a.reference),
                "patients": CedarSet.of(EntityUid("Patient", a.patient) for a in live if a.patient),
            }
        )
        me = EntityUid("User", name)
        entities.append(Entity(me, attributes, _all("Role", [a.role for a in live])))
        context: dict[str, Value] = {
            "purpose": EntityUid("Purpose", purpose or DEFAULTS[name]),
            "now": DateTime(int(datetime.now(UTC).timestamp() * 1000)),
            "source": world.gate.ready.point.data_map.source,
        }
        everybody = Entities(entities)
        nothing = EntityUid("Record", "none")
        env = Env(me, EntityUid("Action", "view"), nothing, context, everybody)
        # What is for other people says nothing about her, whatever the row: time is saved here.
        hers = tuple(
            policy
            for policy in world.gate.ready.point.policies.policies
            if evaluate(policy.principal.expression("principal"), env) is not False
        )
        self.asking = Asking(PolicySet(hers, ""), everybody, me, context)
        # Two records that differ only in what no policy speaks of are one question.
        self._patient_matters = any(
            re.search(r"\bresource\s*(\.|has)\s*patient\b", p.text)
            for p in self.asking.policies.policies
        )
        self._known: dict[Any, dict[str, Disclosure]] = {}

    def level(self, known: dict[str, Disclosure], record: Any, labels: set[str]) -> Disclosure:
        """The lowest of the labels' levels; ``known`` are those already asked of this record."""
        for label in labels:
            if label not in known:
                known[label] = level_of(self.asking, record, label).level
        return min(known[label] for label in labels)

    def sees(self, table: str) -> list[tuple[Any, ...]]:
        """The rows of a table as she should get them, columns as they stand in it."""
        shape = self.world.shapes[table]
        answer = []
        for row in self.world.rows[table]:
            record, extra = self.world.record(table, row), self.world.labels(table, row)
            key = frozenset(
                item for item in record.items() if self._patient_matters or item[0] != "patient"
            )
            known = self._known.setdefault(key, {})
            level = partial(self.level, known, record)
            if level({shape.row_category} | extra) > Disclosure.WITHHELD:
                answer.append(
                    tuple(
                        self._cell(shape.columns.get(name), value, row, level, extra)
                        for name, value in row.items()
                    )
                )
        return answer

    def _cell(
        self,
        column: Column | None,
        value: Any,
        row: dict[str, Any],
        level_of_cell: Callable[[set[str]], Disclosure],
        extra: set[str],
    ) -> Any:
        if column is None or column.category == "none":
            return None
        if column.domain is not None:
            full = level_of_cell({"record_ids"} | extra) == Disclosure.FULL
            return value if full or value is None else Pseudonym(column.domain, value)
        level = level_of_cell({column.category} | extra)
        if level == Disclosure.FULL:
            return value
        forms = [column.summary] if level == Disclosure.SUMMARY else []
        forms += [column.masked] if level > Disclosure.WITHHELD else []
        form = next((f for f in forms if f is not None), None)
        if form in CONSTANTS:
            return CONSTANTS[form]
        if form == "header":
            return f"[{row['kind']} note of {row['written_on']}]"
        if form is not None and form[0] == "=":
            return row[form[1:]]
        return None if form is None or value is None else FORMS[form](value)


def _all(kind: str, names: list[str]) -> frozenset[EntityUid]:
    return frozenset(EntityUid(kind, name) for name in names)


@pytest.fixture(scope="module", params=["smart-r4-csv", "dbt-synthea-27", "hospital"])
def world(
    request: pytest.FixtureRequest,
    project_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    open_gate: Callable[..., AbstractContextManager[Any]],
) -> Iterator[World]:
    text = (project_root / "tests/cases/differential" / f"{request.param}.txt").read_text("utf-8")
    if request.param == "hospital":
        yield World(request.getfixturevalue("gate"), text)
        return
    data = request.getfixturevalue("shared_dir") / "data" / request.param
    if not data.is_dir():
        pytest.skip(f"no {request.param} in the shared data")
    with open_gate(tmp_path_factory.mktemp("state"), data) as gate:
        yield World(gate, text)


def ask(connection: psycopg.Connection[Any], sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql.encode()).fetchall()


@pytest.mark.parametrize("visit", VISITS, ids=lambda v: "-".join(filter(None, v)))
def test_every_cell_is_what_the_policy_says_of_its_row(
    world: World, visit: tuple[str, str | None]
) -> None:
    name, purpose = visit
    person = Person(world, name, purpose)
    wanted_by: dict[tuple[str, Any], list[Any]] = defaultdict(list)
    got_by: dict[tuple[str, Any], list[Any]] = defaultdict(list)
    with world.gate.connect(name) as connection:
        if purpose is not None:
            connection.execute(f"SET chartgate.purpose TO '{purpose}'".encode())
        for table, shape in world.shapes.items():
            wanted, got = person.sees(table), ask(connection, f'SELECT * FROM "{table}"')
            domains = [shape.columns[c].domain for c in world.rows[table][0]] if wanted else []
            plain_wanted = [tuple(c.domain if isinstance(c, Pseudonym) else c for c in row)
                            for row in wanted]  # fmt: skip
            plain_got = [
                tuple(d if d is not None and c is not None and c not in world.keys[d] else c
                      for d, c in zip(domains, row, strict=True))
                for row in got
            ]  # fmt: skip
            assert Counter(plain_got) == Counter(plain_wanted), f"{name} {table}"
            for rows, plain, by in ((wanted, plain_wanted, wanted_by), (got, plain_got, got_by)):
                for row, shown in zip(rows, plain, strict=True):
                    for at, domain in enumerate(domains):
                        if domain is not None and shown[at] == domain:
                            value = row[at].value if isinstance(row[at], Pseudonym) else row[at]
                            by[domain, value].append((table, at, shown))
    # Keys of different things never look alike, even where their values are equal.
    stand_ins = [value for _, value in got_by]
    assert len(set(stand_ins)) == len(stand_ins)
    # One stand-in for one key, wherever it stands: they have the same places in the same rows.
    assert profiles(got_by) == profiles(wanted_by)


def profiles(places: dict[tuple[str, Any], list[Any]]) -> Counter[Any]:
    return Counter(
        (domain, frozenset(Counter(found).items())) for (domain, _), found in places.items()
    )


@pytest.mark.parametrize("name", ["mwelby", "nadams", "rpatel", "bcoder", "pofficer", "ddba"])
def test_questions_are_answered_from_what_is_seen(world: World, name: str) -> None:
    person = Person(world, name, None)
    place = {t: {c: i for i, c in enumerate(rows[0])} for t, rows in world.rows.items()}

    def column(table: str, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(row[place[table][n]] for n in names) for row in person.sees(table)]

    names = HOSPITAL if world.is_hospital else SYNTHEA
    patients = column(names["patients"], *(names[n] for n in ("id", "gender", "birthdate")))
    conditions = column(
        names["conditions"], *(names[n] for n in ("patient", "description", "start"))
    )

    def put(sql: str) -> list[tuple[Any, ...]]:
        return ask(connection, sql.format_map(names))

    with world.gate.connect(name) as connection:
        joined = Counter(g for p, _, _ in conditions for i, g, _ in patients if p == i)
        assert dict(put(
            "SELECT p.{gender}, count(*) FROM {conditions} c JOIN {patients} p "
            "ON p.{id} = c.{patient} GROUP BY 1"
        )) == joined  # fmt: skip
        texts = Counter(d for _, d, _ in conditions if d is not None and "disorder" in d)
        assert dict(put(
            "SELECT {description}, count(*) FROM {conditions} "
            "WHERE {description} LIKE '%disorder%' GROUP BY 1"
        )) == texts  # fmt: skip
        born = [b for _, g, b in patients if g == "F" and b is not None]
        assert put(
            "SELECT min({birthdate}), max({birthdate}) FROM {patients} WHERE {gender} = 'F'"
        ) == [(min(born, default=None), max(born, default=None))]
        late = [s for _, _, s in conditions if s is not None and s >= date(2010, 1, 1)]
        assert put("SELECT count(*) FROM {conditions} WHERE {start} >= '2010-01-01'") == [
            (len(late),)
        ]
        keys = {p for p, _, _ in conditions}
        assert put("SELECT count(DISTINCT {patient}) FROM {conditions}") == [(len(keys),)]
        alone = [i for i, _, _ in patients if i not in keys]
        assert len(put(
            "SELECT {id} FROM {patients} p WHERE NOT EXISTS "
            "(SELECT 1 FROM {conditions} c WHERE c.{patient} = p.{id})"
        )) == len(alone)  # fmt: skip


def test_the_six_people_see_different_things(world: World) -> None:
    """An oracle that shows everybody everything, or nothing, would prove nothing."""
    names = HOSPITAL if world.is_hospital else SYNTHEA
    tables = {kind: names[kind] for kind in ("patients", "conditions", "claims")}
    seen = {
        name: {kind: len(Person(world, name, None).sees(t)) for kind, t in tables.items()}
        for name in ("mwelby", "rpatel", "bcoder", "ddba")
    }
    everything = {kind: len(world.rows[t]) for kind, t in tables.items()}
    assert 0 < seen["mwelby"]["patients"] < everything["patients"]
    assert 0 < seen["mwelby"]["conditions"] < everything["conditions"]
    assert seen["rpatel"]["conditions"] == 0 < seen["rpatel"]["patients"]
    assert seen["bcoder"]["patients"] == everything["patients"]
    assert seen["ddba"]["conditions"] == 0 < seen["ddba"]["claims"]
    assert world.protected


def test_a_protected_patient_is_there_for_her_team_alone(world: World) -> None:
    names = HOSPITAL if world.is_hospital else SYNTHEA
    with world.gate.connect("mwelby") as connection:
        for patient in sorted(world.protected):
            got = connection.execute(
                "SELECT count(*) FROM {patients} WHERE {id} = %s".format_map(names).encode(),
                (patient,),
            )
            assert got.fetchone() == (int("mwelby" in world.team[patient]),)


def test_pseudonyms_differ_from_session_to_session(world: World) -> None:
    names = HOSPITAL if world.is_hospital else SYNTHEA
    found = []
    for _ in range(2):
        with world.gate.connect("ddba") as connection:
            rows = ask(connection, "SELECT {id} FROM {patients}".format_map(names))
            found.append({key for (key,) in rows})
    assert len(found[0]) == len(found[1]) > 0
    assert not found[0] & found[1]


def test_an_assignment_that_ends_takes_its_sight_along(world: World) -> None:
    """In the middle of a session, at its end: nothing has to run for it to stop working."""
    with world.gate.connect("oncdoc") as connection, world.gate.control() as control:

        def seen() -> Counter[Any]:
            return Counter(
                city for (city,) in ask(connection, f"SELECT city FROM {world.patients}")
            )

        def due() -> Counter[Any]:
            at = [*world.rows[world.patients][0]].index("city")
            return Counter(row[at] for row in Person(world, "oncdoc", "TREAT").sees(world.patients))

        now = datetime.now(UTC)
        own = control.assign("oncdoc", "physician", "oncology", valid_from=now)
        narrow = due()
        ends = now + timedelta(seconds=5)
        control.assign(
            "oncdoc", "physician", "cardiology", valid_from=now, valid_until=ends, reference="LOC-1"
        )
        wide = due()
        assert wide > narrow > Counter()
        while datetime.now(UTC) < ends - timedelta(seconds=1) and seen() != wide:
            threading.Event().wait(0.05)
        assert seen() == wide
        threading.Event().wait((ends - datetime.now(UTC)).total_seconds() + 0.01)
        assert seen() == due() == narrow
        if world.is_hospital:
            return  # shared with other tests, which find her as she was
        control.end_assignment(own, at=datetime.now(UTC))

        def until_cut() -> None:
            for _ in range(100):
                seen()
                threading.Event().wait(0.05)

        with pytest.raises(psycopg.OperationalError) as cut:
            until_cut()
        assert cut.value.sqlstate == "57P01"
