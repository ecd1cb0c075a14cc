"""What must be true of the demo, one named check each; every one of them can fail.

Rule kept: an expectation is stated here on its own or read straight from the hospital's database,
never taken from the policies, the data map or the gate.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chartgate.demo.check_visit import Answer, Visitor, audit, by_psql, refused_login, truth
from chartgate.demo.run import Prepared
from chartgate.demo.shipped import shipped
from chartgate.demo.tour import Layout, Subject, person

_RECEIVERS = ("mwelby", "nadams", "bcoder")
"""Who gets a row that names the subject, asking for it by key."""
_FORBIDDEN = "SELECT pg_read_file('/etc/passwd')"
_INITIAL = re.compile(r".\.")


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, and whether it was kept."""

    name: str
    passed: bool
    tried: bool = True
    """False where the data hold no such case: then nothing was shown and nothing failed."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the checks work on."""

    ready: Prepared
    port: int
    layout: Layout
    subject: Subject
    visitors: dict[str, Visitor]
    progress: Callable[[str], None]

    def truth(self, statement: str, *arguments: object) -> list[Any]:
        return truth(self.ready, statement, arguments)

    def ask(self, username: str, statement: str) -> Answer:
        return self.visitors[username].ask(statement)


Outcome = str | None
"""What is wrong; ``None`` when nothing is."""
Rules = Sequence[tuple[str, Callable[[Findings], Outcome]]]


class NothingToTry(Exception):
    """The data hold no such case."""


def examine(found: Findings, further: Rules = ()) -> list[Check]:
    """Every check, in the order in which they are told; those of the log come last."""
    found.progress("holding what they saw against the hospital's own data")
    rules = (*_RULES, *further, *_LOG_RULES)
    return [_check(name, rule, found) for name, rule in rules]


def _check(name: str, rule: Callable[[Findings], Outcome], found: Findings) -> Check:
    try:
        wrong = rule(found)
    except NothingToTry as exc:
        return Check(name, passed=True, tried=False, detail=str(exc))
    except Exception as exc:  # noqa: BLE001  (a check that cannot be made has failed)
        wrong = f"the check itself failed ({type(exc).__name__}: {exc})"
    return Check(name, passed=wrong is None, detail=wrong or "")


# --- what people see ---------------------------------------------------------------------------


def _everybody_is_answered(f: Findings) -> Outcome:
    for name, visitor in f.visitors.items():
        for answer in visitor.answers:
            if answer.sqlstate:
                return f"{name} got {answer.sqlstate} {answer.message} for: {answer.sql}"
    return None


def _psql_agrees(f: Findings) -> Outcome:
    question = f.layout.tries[0].sql
    for name in ("mwelby", "rpatel"):
        by_program = by_psql(f.ready, f.port, name, question)
        if by_program is None:
            return "there is no psql on this computer"
        by_library = [
            ["" if cell is None else str(cell) for cell in row]
            for row in f.ask(name, question).rows
        ]
        # Pseudonyms belong to a session: of a row that has one, the rest must agree.
        if len(by_program) != len(by_library) or not by_library:
            return f"{name}: {len(by_program)} rows by psql, {len(by_library)} by psycopg"
        for ours, theirs in zip(by_library, by_program, strict=True):
            if ours[1:] != theirs[1:]:
                return f"{name}: a row differs between psql and psycopg"
    return None


def _wrong_password(f: Findings) -> Outcome:
    if not refused_login(f.ready, f.port, "mwelby", "not the password"):
        return "a login with a wrong password was not refused as one"
    told = audit(f.ready, "user", "mwelby").report
    if not any(s["what"] == "login refused" for s in told.get("report", {}).get("sessions", ())):
        return "the refused login is not in the log"
    return None


def _physician_sees_the_chart(f: Findings) -> Outcome:
    y, key = f.layout, f.subject.key
    for table, column in ((y.patient, y.key), (y.labs, y.lab_patient)):
        shown = y.last_name if table == y.patient else y.lab_value
        query = f"SELECT {shown} FROM {table} WHERE {column}::text = "
        mine = sorted(map(str, f.ask("mwelby", f"{query}'{key}'").column(shown)))
        whole = sorted(str(row[0]) for row in f.truth(f"{query}%s", key))
        if not mine:
            return f"nothing of the patient's {table} was shown"
        if mine != whole:
            return f"{table}: {len(mine)} rows were shown, the hospital has {len(whole)}"
    return None


def _protected_patient_is_hidden(f: Findings) -> Outcome:
    y = f.layout
    rows = f.truth(
        f"SELECT p.{y.key}::text FROM {y.patient} p "
        f"WHERE EXISTS (SELECT FROM patient_flag f WHERE {y.flagged}) AND NOT EXISTS "
        f"(SELECT FROM care_team ct JOIN staff s USING (staff_id) WHERE {y.staffed} "
        "AND s.username = 'mwelby')"
    )
    if not rows:
        raise NothingToTry("these data have no such patient")
    hidden = {str(row[0]) for row in rows}
    shown = f.ask("mwelby", f"SELECT {y.key} FROM {y.patient}").column(y.key)
    seen = hidden & set(map(str, shown))
    return f"{len(seen)} of {len(hidden)} protected patients were shown" if seen else None


def _substance_use_is_masked(f: Findings) -> Outcome:
    y = f.layout
    text = (shipped("maps") / "codesets" / y.sud_codes).read_text("utf-8")
    codes = {line.partition("#")[0].strip() for line in text.splitlines()} - {""}
    rows = f.truth(
        f"SELECT {y.condition_patient}::text, description FROM {y.conditions} WHERE code = ANY(%s)",
        sorted(codes),
    )
    if not rows:
        raise NothingToTry("these data have no such record")
    told, people = {row[1] for row in rows}, {row[0] for row in rows}
    query = f"SELECT {y.condition_patient}, code, description FROM {y.conditions}"
    masked_for = set()
    for name in f.visitors:
        answer = f.ask(name, query)
        if not answer.columns:
            return f"{name} was not answered"
        for key, code, description in answer.rows:
            if description in told or code in codes:
                return f"{name} was shown a substance use record in the clear"
            if description == "[restricted]":
                masked_for.add(name)
                if str(key) in people:
                    return f"{name} was shown whose restricted record it is"
    return None if "mwelby" in masked_for else "the physician was shown no masked record"


def _receptionist_sees_no_labs(f: Findings) -> Outcome:
    y = f.layout
    for table in (y.labs, y.conditions):
        answer = f.ask("rpatel", f"SELECT * FROM {table}")
        if answer.sqlstate or answer.rows:
            return f"{table}: {len(answer.rows)} rows {answer.message}".strip()
        if f"{table}: no rows" not in answer.detail:
            return f"the NOTICE does not say that rows of {table} were withheld"
    return None


def _coder_sees_charges_not_results(f: Findings) -> Outcome:
    y = f.layout
    amounts = [row[0] for row in f.ask("bcoder", y.charges).rows]
    if not any(amount is not None for amount in amounts):
        return "no amount was shown"
    query = f"SELECT {y.lab_value} FROM {y.labs}"
    measured = {str(row[0]) for row in f.truth(query) if _is_number(row[0])}
    answer = f.ask("bcoder", query)
    shown = {str(value) for value in answer.column(y.lab_value)} & measured
    if not answer.rows:
        return "not even the existence of results was shown"
    return f"{len(shown)} measured values were shown" if shown else None


def _dba_sees_pseudonyms(f: Findings) -> Outcome:
    y = f.layout
    answer = f.ask(
        "ddba",
        f"SELECT {y.key}, {y.identifier}, {y.last_name}, {y.ssn} FROM {y.patient}",
    )
    if not answer.rows:
        return "no row was shown"
    real = {
        str(value)
        for row in f.truth(f"SELECT {y.key}, {y.identifier} FROM {y.patient}")
        for value in row
    }
    for key, number, name, ssn in answer.rows:
        if {str(key), str(number)} & real:
            return "a patient's real key or number was shown"
        if name is not None and not _INITIAL.fullmatch(name):
            return "a name was shown"
        if ssn is not None:
            return "a social security number was shown"
    joined = f.ask(
        "ddba",
        f"SELECT count(*) FROM {y.labs} l JOIN {y.patient} p ON p.{y.key} = l.{y.lab_patient}",
    )
    if joined.sqlstate or not joined.rows[0][0]:
        return "pseudonyms of two tables do not join"
    return None


def _notice_once(f: Findings) -> Outcome:
    for name, visitor in f.visitors.items():
        for answer in visitor.answers:
            if len(answer.notices) > 1:
                return f"{name} got {len(answer.notices)} NOTICEs for: {answer.sql}"
            if answer.notices and answer.event is None:
                return f"a NOTICE to {name} names no event"
    if not all(f.visitors[name].answers[0].notices for name in ("mwelby", "rpatel", "ddba")):
        return "a filtered answer came without a NOTICE"
    return None


# --- what is refused ---------------------------------------------------------------------------


def _refusal_is_named(f: Findings) -> Outcome:
    answer = f.ask("mwelby", _FORBIDDEN)
    if answer.sqlstate != "42501" or "pg_read_file" not in answer.message:
        return f"the answer was {answer.sqlstate or 'rows'} {answer.message}"
    if answer.event is None:
        return "the refusal names no event"
    rows = _statements(f, "mwelby")
    found = [row for row in rows if row["index"] == answer.event]
    if not found or found[0]["outcome"] != "refused":
        return f"event {answer.event} is not a refused statement in the log"
    if "pg_read_file" not in found[0]["reason"]:
        return "the log does not say what was refused"
    return None if not f.ask("mwelby", "SELECT 1").sqlstate else "the session did not live on"


def _write_is_refused(f: Findings) -> Outcome:
    y = f.layout
    query = f"SELECT md5(string_agg({y.last_name}, ',' ORDER BY {y.key})) FROM {y.patient}"
    before = f.truth(query)
    answer = f.ask("ddba", f"UPDATE {y.patient} SET {y.last_name} = 'X'")
    if answer.sqlstate != "42501":
        return f"the answer was {answer.sqlstate or 'success'} {answer.message}"
    return None if f.truth(query) == before else "the table has changed"


# --- what the log says -------------------------------------------------------------------------


def _statements(f: Findings, username: str) -> list[dict[str, Any]]:
    told = audit(f.ready, "user", username)
    if told.status:
        raise ValueError(f"audit user {username}: {told.told}")
    statements: list[dict[str, Any]] = told.report["report"]["statements"]
    return statements


def _log_counts_what_was_delivered(f: Findings) -> Outcome:
    for visitor in f.visitors.values():
        visitor.leave()
    with ThreadPoolExecutor(2) as pool:
        told = dict(zip(f.visitors, pool.map(lambda n: _statements(f, n), f.visitors), strict=True))
    for name, visitor in f.visitors.items():
        rows = told[name]
        known = next(answer.event for answer in visitor.answers if answer.event is not None)
        session = next((row["session"] for row in rows if row["index"] == known), None)
        # One for one, in the order in which they were sent.
        logged = [row for row in rows if row["session"] == session]
        if len(logged) != len(visitor.answers):
            return f"{name} sent {len(visitor.answers)} statements, the log has {len(logged)}"
        for answer, row in zip(visitor.answers, logged, strict=True):
            if answer.event is not None and answer.event != row["index"]:
                return f"{name}: event {answer.event} was told, {row['index']} is in the log"
            outcome = "refused" if answer.sqlstate else "delivered"
            if row["outcome"] != outcome or row["rows"] != len(answer.rows):
                return (
                    f"event {row['index']}: {name} was {outcome} {len(answer.rows)} rows, the log "
                    f"says {row['outcome']} {row['rows']}"
                )
    return None


def _who_names_the_receivers(f: Findings) -> Outcome:
    f.progress("asking the audit log who saw the patient")
    y = f.layout
    query = f"SELECT {y.last_name} FROM {y.patient} WHERE {y.key}::text = '{f.subject.key}'"
    for name in _RECEIVERS:
        answer = f.ask(name, query)
        if len(answer.rows) != 1:
            return f"{name} got {len(answer.rows)} rows for the patient's key"
    told = audit(f.ready, "who", "--patient", f.subject.identifier)
    if told.status:
        return f"audit who: {told.told}"
    report, names = told.report["report"], told.report["names"]
    accessed = {names.get(row["person"], row["person"]) for row in report["accesses"]}
    for name in _RECEIVERS:
        if _full_name(name) not in accessed:
            return f"{_full_name(name)} got the patient's row and is not named"
    stranger = {n for n in names.values() if n not in map(_full_name, f.visitors)}
    if accessed & stranger:
        return "somebody is named who never logged in"
    if not told.report["closing"].endswith("may include this patient"):
        return "the answer does not end with the scope-only statements"
    return None


def _full_name(username: str) -> str:
    return person(username).full_name


def _who_is_not_for_everybody(f: Findings) -> Outcome:
    told = audit(f.ready, "who", "--patient", f.subject.identifier, "--as", "rpatel")
    if told.status != 1 or "does not let" not in told.told:
        return f"the receptionist's question ended with {told.status} {told.told}"
    asked = audit(f.ready, "user", "rpatel").report["report"]["asked"]
    if not any(row["allowed"] is False for row in asked):
        return "the refused question is not in the log"
    return None


def _log_verifies(f: Findings) -> Outcome:
    f.progress("verifying the audit log")
    told = audit(f.ready, "verify")
    if told.status or not told.report.get("verified"):
        return told.told or "not verified"
    return None


def _flipped_byte_is_found(f: Findings) -> Outcome:
    state = f.ready.state
    with tempfile.TemporaryDirectory(prefix="chartgate-flip-") as folder:
        copy = Path(folder) / "log"
        shutil.copytree(state.log_dir, copy)
        known = Path(folder) / "known"
        shutil.copy(state.checkpoint_file, known)
        outside: tuple[str, ...] = ("--log", str(copy), "--key", str(state.log_public_key))
        outside += ("--checkpoint", str(known))
        if (whole := audit(f.ready, "verify", *outside)).status:
            return f"the untouched copy does not verify: {whole.told}"
        victim = max(_files(copy), key=lambda path: path.stat().st_size)
        data = bytearray(victim.read_bytes())
        data[len(data) // 3] ^= 1
        victim.write_bytes(data)
        told = audit(f.ready, "verify", *outside)
        if told.status != 1:
            return f"verify ended with {told.status} although a byte of the copy was changed"
        if victim.name not in told.told:
            return f"verify does not name the file: {told.told}"
    return None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


_RULES: Rules = (
    ("six people log in and all their questions are answered", _everybody_is_answered),
    ("psql and psycopg are shown the same", _psql_agrees),
    ("a wrong password is refused, and the log knows", _wrong_password),
    (
        "the physician sees the chart of his patient as the hospital has it",
        _physician_sees_the_chart,
    ),
    ("the physician sees no VIP or employee who is not his patient", _protected_patient_is_hidden),
    ("substance use records are masked for everybody", _substance_use_is_masked),
    ("the receptionist sees no results and no diagnoses", _receptionist_sees_no_labs),
    ("the billing coder sees charges, and of results no value", _coder_sees_charges_not_results),
    ("the DBA sees pseudonyms and initials only, and can join them", _dba_sees_pseudonyms),
    ("a filtered answer carries one NOTICE with its event number", _notice_once),
    ("a forbidden function is refused by name, and the log says so", _refusal_is_named),
    ("a write without a right is refused and changes nothing", _write_is_refused),
    ("the log names everybody who was shown the patient", _who_names_the_receivers),
    ("the receptionist may not ask the log, and her question is in it", _who_is_not_for_everybody),
    ("the log counts exactly the rows that were delivered", _log_counts_what_was_delivered),
)
_LOG_RULES: Rules = (
    ("the log verifies", _log_verifies),
    ("one flipped byte in a copy of the log is found and named", _flipped_byte_is_found),
)
