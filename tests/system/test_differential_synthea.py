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
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chartgate.app.levels import Asking, level_of_labels
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.values import CedarSet, DateTime, RecordValue, Value
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import EntityUid

pytestmark = [pytest.mark.system, pytest.mark.slow]

# table: row category, column of the patient, columns with codes ("?" = may be empty); then its
# columns: category, and what stands for them at summary / masked ("-" = nothing of its own).
SMART_R4 = """
patients demographics id
  id key:patient; mrn record_ids - tail; ssn gov_ids - ssn; drivers gov_ids; passport gov_ids
  birthdate demographics - birth; deathdate demographics keep month; prefix demographics keep keep
  first demographics - initial; last demographics - initial; maiden demographics - initial
  mothers_maiden demographics; marital demographics; race demographics; ethnicity demographics
  gender demographics keep keep; birthplace demographics; phone demographics - phone
  address demographics; city demographics keep keep; state demographics keep keep
  zip demographics; lat demographics; lon demographics
encounters scheduling patient code reasoncode?
  id key:encounter; start scheduling day month; stop scheduling day month; patient key:patient
  organization scheduling keep; provider scheduling keep; encounterclass scheduling keep
  code clinical_summary keep; description clinical_summary keep restricted
  reasoncode clinical_summary keep; reasondescription clinical_summary keep restricted
conditions clinical_summary patient code
  id key:condition; start clinical_summary keep month; stop clinical_summary keep month
  patient key:patient; encounter key:encounter; code clinical_summary keep
  description clinical_summary keep restricted
observations labs patient code
  id key:observation; date labs day month; patient key:patient; encounter key:encounter
  category labs keep keep; code labs keep; description labs keep restricted; value labs
  units labs keep
medications medications patient code
  id key:medication; start medications day month; status medications keep keep
  patient key:patient; provider scheduling keep; encounter key:encounter; code medications keep
  description medications keep restricted
procedures clinical_summary patient code
  id key:procedure; start clinical_summary day month; stop clinical_summary day month
  patient key:patient; encounter key:encounter; code clinical_summary keep
  description clinical_summary keep restricted
immunizations clinical_summary patient
  id key:immunization; date clinical_summary day month; patient key:patient
  encounter key:encounter; code clinical_summary keep; description clinical_summary keep
allergies clinical_summary patient
  id key:allergy; start clinical_summary keep month; patient key:patient
  code clinical_summary keep; description clinical_summary keep; category clinical_summary keep
careplans clinical_summary patient code
  id key:careplan; start clinical_summary keep month; stop clinical_summary keep month
  patient key:patient; encounter key:encounter; code clinical_summary keep
  description clinical_summary keep restricted
claims billing patient
  id key:claim; patient key:patient; organization billing keep; encounter key:encounter
  type billing keep keep; start billing day month; stop billing day month; total billing - keep
  payer insurance keep
"""
SYNTHEA = """
patients demographics id
  id key:patient; birthdate demographics - birth; deathdate demographics keep month
  ssn gov_ids - ssn; drivers gov_ids; passport gov_ids; prefix demographics keep keep
  first demographics - initial; last demographics - initial; suffix demographics
  maiden demographics - initial; marital demographics; race demographics; ethnicity demographics
  gender demographics keep keep; birthplace demographics; address demographics
  city demographics keep keep; state demographics keep keep; county demographics
  zip demographics; lat demographics; lon demographics; healthcare_expenses billing
  healthcare_coverage billing
encounters scheduling patient code reasoncode?
  id key:encounter; start scheduling day month; stop scheduling day month; patient key:patient
  organization scheduling keep; provider scheduling keep; payer insurance keep
  encounterclass scheduling keep; code clinical_summary keep
  description clinical_summary keep restricted; base_encounter_cost billing
  total_claim_cost billing; payer_coverage billing; reasoncode clinical_summary keep
  reasondescription clinical_summary keep restricted
conditions clinical_summary patient code
  start clinical_summary keep month; stop clinical_summary keep month; patient key:patient
  encounter key:encounter; code clinical_summary keep
  description clinical_summary keep restricted
observations labs patient code
  date labs day month; patient key:patient; encounter key:encounter; category labs keep keep
  code labs keep; description labs keep restricted; value labs; units labs keep; type labs keep
medications medications patient code reasoncode?
  start medications day month; stop medications day month; patient key:patient
  payer insurance keep; encounter key:encounter; code medications keep
  description medications keep restricted; base_cost billing; payer_coverage billing
  dispenses medications; totalcost billing; reasoncode clinical_summary keep
  reasondescription clinical_summary keep restricted
procedures clinical_summary patient code reasoncode?
  start clinical_summary day month; stop clinical_summary day month; patient key:patient
  encounter key:encounter; code clinical_summary keep
  description clinical_summary keep restricted; base_cost billing
  reasoncode clinical_summary keep; reasondescription clinical_summary keep restricted
immunizations clinical_summary patient
  date clinical_summary day month; patient key:patient; encounter key:encounter
  code clinical_summary keep; description clinical_summary keep; base_cost billing
allergies clinical_summary patient
  start clinical_summary keep month; stop clinical_summary keep month; patient key:patient
  encounter key:encounter; code clinical_summary keep; system clinical_summary keep
  description clinical_summary keep; type clinical_summary keep; category clinical_summary keep
  reaction1 clinical_summary keep; description1 clinical_summary keep
  severity1 clinical_summary keep; reaction2 clinical_summary keep
  description2 clinical_summary keep; severity2 clinical_summary keep
careplans clinical_summary patient code reasoncode?
  id key:careplan; start clinical_summary keep month; stop clinical_summary keep month
  patient key:patient; encounter key:encounter; code clinical_summary keep
  description clinical_summary keep restricted; reasoncode clinical_summary keep
  reasondescription clinical_summary keep restricted
claims billing patientid diagnosis1? diagnosis2? diagnosis3? diagnosis4? diagnosis5? diagnosis6? diagnosis7? diagnosis8?
  id key:claim; patientid key:patient; providerid scheduling keep
  primarypatientinsuranceid insurance; secondarypatientinsuranceid insurance
  departmentid billing keep; patientdepartmentid billing keep; diagnosis1 billing keep
  diagnosis2 billing keep; diagnosis3 billing keep; diagnosis4 billing keep
  diagnosis5 billing keep; diagnosis6 billing keep; diagnosis7 billing keep
  diagnosis8 billing keep; referringproviderid scheduling; appointmentid key:encounter
  currentillnessdate billing day month; servicedate billing day month
  supervisingproviderid scheduling; status1 billing keep keep; status2 billing keep keep
  statusp billing keep keep; outstanding1 billing - keep; outstanding2 billing - keep
  outstandingp billing - keep; lastbilleddate1 billing day month
  lastbilleddate2 billing day month; lastbilleddatep billing day month
  healthcareclaimtypeid1 billing keep; healthcareclaimtypeid2 billing keep
claims_transactions billing patientid procedurecode
  id key:transaction; claimid key:claim; chargeid record_ids; patientid key:patient
  type billing keep keep; amount billing - keep; method billing; fromdate billing day month
  todate billing day month; placeofservice billing keep; procedurecode billing keep
  modifier1 billing; modifier2 billing; diagnosisref1 billing keep; diagnosisref2 billing keep
  diagnosisref3 billing keep; diagnosisref4 billing keep; units billing keep
  departmentid billing keep; notes billing keep service; unitamount billing - keep
  transferoutid record_ids; transfertype billing; payments billing; adjustments billing
  transfers billing; outstanding billing - keep; appointmentid key:encounter; linenote billing
  patientinsuranceid insurance; feescheduleid billing; providerid scheduling keep
  supervisingproviderid scheduling keep
"""
ADDED = """
care_team clinical_summary patient
  patient key:patient; staff_id key:staff; department clinical_summary keep
  since clinical_summary keep month; until clinical_summary keep month
patient_flag protected_person patient
  patient key:patient; flag protected_person - protected; since protected_person
staff scheduling -
  staff_id key:staff; username scheduling keep keep; full_name scheduling keep keep
  title scheduling keep keep; department scheduling keep keep
"""
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
]
DEFAULTS = {
    "mwelby": "TREAT", "nadams": "TREAT", "rpatel": "PATADMIN", "bcoder": "HPAYMT",
    "pofficer": "HCOMPL", "ddba": "HSYSADMIN", "bclinician": "TREAT",
}  # fmt: skip
SETS = {
    "sud_part2": "synthea_sud",
    "behavioral_health": "synthea_behavioral_health",
    "repro_sti_hiv": "synthea_repro_sti_hiv",
}


def months(day: date, back: int) -> date:
    return day.replace(year=day.year - back)


FORMS: dict[str, Callable[[Any], Any]] = {
    "keep": lambda v: v,
    "month": lambda v: (
        v.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        if isinstance(v, datetime)
        else v.replace(day=1)
    ),
    "day": lambda v: v.replace(hour=0, minute=0, second=0, microsecond=0),
    "birth": lambda v: v.replace(month=1, day=1) if v > months(date.today(), 90) else None,
    "initial": lambda v: v[:1] + ".",
    "tail": lambda v: "***" + v[-4:],
    "ssn": lambda v: "***-**-" + v[-4:],
    "phone": lambda v: "***-***-" + v[-4:],
}
CONSTANTS = {"restricted": "[restricted]", "service": "Service", "protected": "protected"}


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
    columns: dict[str, Column]


def shapes(text: str) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for line in filter(None, text.splitlines()):
        if not line.startswith(" "):
            name, category, patient, *codes = line.split()
            columns: dict[str, Column] = {}
            found[name] = Shape(
                category, None if patient == "-" else patient, tuple(codes), columns
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
        self.shapes = shapes(text + ADDED)
        with gate.connect("bcoder") as connection:
            self.zone = connection.execute("SHOW TimeZone").fetchone()[0]
        with gate.admin() as raw:
            raw.execute(f"SET TimeZone = '{self.zone}'")
            self.rows = {name: self._table(raw, name) for name in self.shapes}
        staff = {row["staff_id"]: row["username"] for row in self.rows["staff"]}
        self.departments: dict[str, set[str]] = defaultdict(set)
        self.team: dict[str, set[str]] = defaultdict(set)
        for row in self.rows["care_team"]:
            self.departments[row["patient"]].add(row["department"])
            if row["until"] is None or row["until"] >= date.today():
                self.team[row["patient"]].add(staff[row["staff_id"]])
        self.protected = {
            row["patient"]
            for row in self.rows["patient_flag"]
            if row["flag"] in ("vip", "employee")
        }
        codes = gate.state.root / "maps" / "codesets"
        self.sets = {label: _codes(codes / f"{file}.txt") for label, file in SETS.items()}
        self.known = _codes(codes / "reviewed.txt").union(*self.sets.values())

    def _table(self, raw: psycopg.Connection[Any], name: str) -> list[dict[str, Any]]:
        with raw.cursor() as cursor:
            cursor.execute(f'SELECT * FROM public."{name}"'.encode())
            names = [c.name for c in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def labels(self, table: str, row: dict[str, Any]) -> set[str]:
        """What the row carries beside its columns' categories."""
        shape = self.shapes[table]
        found: set[str] = set()
        if shape.patient is not None and row[shape.patient] in self.protected:
            found.add("protected_person")
        for name in shape.codes:
            code = row[name.removesuffix("?")]
            if code is None:
                found |= set() if name.endswith("?") else set(self.sets)
            elif code not in self.known:
                found |= set(self.sets)
            else:
                found |= {label for label, codes in self.sets.items() if code in codes}
        if table == "care_team" and row["department"] == "psychiatry":
            found.add("behavioral_health")
        return found

    def record(self, table: str, row: dict[str, Any]) -> dict[str, Value]:
        """The row as policies see it."""
        column = self.shapes[table].patient
        patient = None if column is None else row[column]
        found: dict[str, Value] = {
            "departments": CedarSet.of(
                EntityUid("Department", d) for d in self.departments.get(patient, ())
            ),
            "care_team": CedarSet.of(EntityUid("User", u) for u in self.team.get(patient, ())),
        }
        if patient is not None:
            found["patient"] = EntityUid("Patient", patient)
        if table == "care_team":
            found["department"] = EntityUid("Department", row["department"])
        return found


def _codes(path: Path) -> set[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines())
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
            }
        )
        me = EntityUid("User", name)
        entities.append(Entity(me, attributes, _all("Role", [a.role for a in live])))
        self.asking = Asking(
            world.gate.ready.point.policies,
            Entities(entities),
            me,
            {
                "purpose": EntityUid("Purpose", purpose or DEFAULTS[name]),
                "now": DateTime(int(datetime.now(UTC).timestamp() * 1000)),
                "source": world.gate.ready.point.data_map.source,
            },
        )
        self._levels: dict[Any, Disclosure] = {}

    def level(self, record: dict[str, Value], labels: set[str]) -> Disclosure:
        key = (tuple(sorted(record.items(), key=lambda item: item[0])), frozenset(labels))
        found = self._levels.get(key)
        if found is None:
            found = self._levels[key] = level_of_labels(self.asking, record, sorted(labels)).level
        return found

    def sees(self, table: str) -> list[tuple[Any, ...]]:
        """The rows of a table as she should get them, columns as they stand in it."""
        shape = self.world.shapes[table]
        answer = []
        for row in self.world.rows[table]:
            record, extra = self.world.record(table, row), self.world.labels(table, row)
            if self.level(record, {shape.row_category} | extra) > Disclosure.WITHHELD:
                answer.append(
                    tuple(
                        self._cell(shape.columns.get(name), value, record, extra)
                        for name, value in row.items()
                    )
                )
        return answer

    def _cell(
        self, column: Column | None, value: Any, record: dict[str, Value], extra: set[str]
    ) -> Any:
        if column is None:
            return None
        if column.domain is not None:
            full = self.level(record, {"record_ids"} | extra) == Disclosure.FULL
            return value if full or value is None else Pseudonym(column.domain, value)
        level = self.level(record, {column.category} | extra)
        if level == Disclosure.FULL:
            return value
        forms = [column.summary] if level == Disclosure.SUMMARY else []
        forms += [column.masked] if level > Disclosure.WITHHELD else []
        form = next((f for f in forms if f is not None), None)
        if form in CONSTANTS:
            return CONSTANTS[form]
        return None if form is None or value is None else FORMS[form](value)


def _all(kind: str, names: list[str]) -> frozenset[EntityUid]:
    return frozenset(EntityUid(kind, name) for name in names)


SETS_OF_ROWS = {"smart-r4-csv": SMART_R4, "dbt-synthea-27": SYNTHEA}


@pytest.fixture(scope="module", params=SETS_OF_ROWS)
def world(
    request: pytest.FixtureRequest,
    shared_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    open_gate: Callable[..., AbstractContextManager[Any]],
) -> Iterator[World]:
    data = shared_dir / "data" / request.param
    if not data.is_dir():
        pytest.skip(f"no {request.param} in the shared data")
    with open_gate(tmp_path_factory.mktemp("state"), data) as gate:
        yield World(gate, SETS_OF_ROWS[request.param])


def is_stand_in(got: Any) -> bool:
    """Whether a key is none of the raw ones: long enough not to be, of the stand-ins' form."""
    if isinstance(got, int):
        return got > 100_000
    return isinstance(got, str) and re.fullmatch("k[0-9a-f]{20}", got) is not None


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
                tuple(d if d is not None and is_stand_in(c) else c
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

    patients, conditions = column("patients", "id", "gender", "birthdate"), column(
        "conditions", "patient", "description", "start"
    )  # fmt: skip
    with world.gate.connect(name) as connection:
        joined = Counter(g for p, _, _ in conditions for i, g, _ in patients if p == i)
        assert Counter(dict(ask(
            connection,
            "SELECT p.gender, count(*) FROM conditions c JOIN patients p ON p.id = c.patient "
            "GROUP BY p.gender",
        ))) == joined  # fmt: skip
        like = Counter(d for _, d, _ in conditions if d is not None and "disorder" in d)
        assert Counter(dict(ask(
            connection,
            "SELECT description, count(*) FROM conditions WHERE description LIKE '%disorder%' "
            "GROUP BY description",
        ))) == like  # fmt: skip
        born = [b for _, g, b in patients if g == "F" and b is not None]
        assert ask(
            connection, "SELECT min(birthdate), max(birthdate) FROM patients WHERE gender = 'F'"
        ) == [(min(born, default=None), max(born, default=None))]
        late = [s for _, _, s in conditions if s is not None and s >= date(2010, 1, 1)]
        assert ask(connection, "SELECT count(*) FROM conditions WHERE start >= '2010-01-01'") == [
            (len(late),)
        ]
        keys = {p for p, _, _ in conditions}
        assert ask(connection, "SELECT count(DISTINCT patient) FROM conditions") == [(len(keys),)]
        alone = [i for i, _, _ in patients if i not in keys]
        assert len(ask(
            connection,
            "SELECT id FROM patients p WHERE NOT EXISTS "
            "(SELECT 1 FROM conditions c WHERE c.patient = p.id)",
        )) == len(alone)  # fmt: skip


def test_the_six_people_see_different_things(world: World) -> None:
    """An oracle that shows everybody everything, or nothing, would prove nothing."""
    seen = {
        name: {
            t: len(Person(world, name, None).sees(t)) for t in ("patients", "conditions", "claims")
        }
        for name in ("mwelby", "rpatel", "bcoder", "ddba")
    }
    everything = {t: len(world.rows[t]) for t in ("patients", "conditions", "claims")}
    assert 0 < seen["mwelby"]["patients"] < everything["patients"]
    assert 0 < seen["mwelby"]["conditions"] < everything["conditions"]
    assert seen["rpatel"]["conditions"] == 0 < seen["rpatel"]["patients"]
    assert seen["bcoder"]["patients"] == everything["patients"]
    assert seen["ddba"]["conditions"] == 0 < seen["ddba"]["claims"]
    assert world.protected


def test_a_protected_patient_is_there_for_her_team_alone(world: World) -> None:
    for patient in sorted(world.protected):
        with world.gate.connect("mwelby") as connection:
            got = connection.execute("SELECT count(*) FROM patients WHERE id = %s", (patient,))
            assert got.fetchone() == (int("mwelby" in world.team[patient]),)


def test_pseudonyms_differ_from_session_to_session(world: World) -> None:
    found = []
    for _ in range(2):
        with world.gate.connect("ddba") as connection:
            found.append({key for (key,) in ask(connection, "SELECT id FROM patients")})
    assert len(found[0]) == len(found[1]) > 0
    assert not found[0] & found[1]


def test_an_assignment_that_ends_takes_its_sight_along(world: World) -> None:
    """In the middle of a session, at its end: nothing has to run for it to stop working."""
    with world.gate.connect("oncdoc") as connection, world.gate.control() as control:

        def seen() -> Counter[Any]:
            return Counter(city for (city,) in ask(connection, "SELECT city FROM patients"))

        def due() -> Counter[Any]:
            at = [*world.rows["patients"][0]].index("city")
            return Counter(row[at] for row in Person(world, "oncdoc", "TREAT").sees("patients"))

        now = datetime.now(UTC)
        own = control.assign("oncdoc", "physician", "oncology", valid_from=now)
        narrow = due()
        ends = now + timedelta(seconds=2.5)
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
        control.end_assignment(own, at=datetime.now(UTC))

        def until_cut() -> None:
            for _ in range(100):
                seen()
                threading.Event().wait(0.05)

        with pytest.raises(psycopg.OperationalError) as cut:
            until_cut()
        assert cut.value.sqlstate == "57P01"
