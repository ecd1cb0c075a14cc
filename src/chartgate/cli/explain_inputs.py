"""What the explaining commands are asked with: people, a record in words, a moment; and who asks.

Rules kept: who may do what is itself sensitive, so questions about the people of an instance are
asked as the audit log is (45 CFR 164.312(b)): the asker signs in, policy decides, and the question
is on disk before a line of the answer appears, and before the source is asked about a patient.
Values of the record are not recorded, since they may say something of a patient: their names are. A
patient is recorded as her token.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from chartgate.adapters.audit_desk import AuditDesk
from chartgate.adapters.state import State, default_root
from chartgate.app.explain_reduced import Known
from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import PolicyVersion, open_bundle
from chartgate.cedar.schema import Attribute, EntityRef, PrimitiveType, SetType, Type
from chartgate.cedar.values import CedarSet, Value
from chartgate.cli.patient_asked import read, token_of
from chartgate.cli.policy_refs import bundle_of
from chartgate.cli.sign_in import password_of
from chartgate.demo.shipped import shipped
from chartgate.errors import Misconfigured
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.admissible import record_attributes

NONE: Final = "none"
SELF: Final = "self"
_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)
SOMEBODY: Final = EntityUid("Patient", "the patient")
_REFERENCE: Final = "a reference"
_OWN_DEPARTMENT: Final = "her own department"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks and under what; how the people asked about are found."""

    state: Path | None
    as_: str | None
    purpose: str = ""
    policies: str | None = None
    people: Path | None = None
    roles: bool = False
    patient: str | None = None
    """The medical record number of the patient whose record is asked about."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Policies and people to ask about. ``note`` says who asked, where the question was recorded."""

    version: PolicyVersion
    people: Mapping[str, Person]
    source: str
    note: str
    event: int | None = None
    asked_by: str | None = None
    of_roles: bool = False
    patient: PatientRecord | None = None

    def person(self, name: str) -> Person:
        """The person of that login name."""
        found = self.people.get(name)
        if found is None:
            raise Misconfigured("there is no person of that name")
        return found


@contextmanager
def setting(
    asker: Asker, question: str, parameters: Mapping[str, str], about: str | None = None
) -> Iterator[Setting]:
    """Where the question is asked: of an instance (recorded), of a file of people, or of roles.

    ``about``: the login name of the one person it is about; recorded as her uid.
    """
    if asker.people is not None or asker.roles or _no_instance(asker):
        if asker.patient is not None:
            raise Misconfigured(
                "--patient is looked up in the source of an instance: start one or name its "
                "--state, and leave off --people, --role, --roles and --scenario"
            )
        version = open_bundle(bundle_of(asker.policies or str(shipped("policies")), asker.state))
        if asker.people is not None:
            yield Setting(version, people_of(asker.people, version), "explain", "")
            return
        note = (
            "Asked of roles: each has a made-up holder with a reference, who works in the record's "
            "department."
        )
        yield Setting(version, {}, "explain", note, of_roles=True)
        return
    from chartgate.cli.policy_store import opened

    with opened(asker.state) as store:
        loaded = store.loaded()
        who = asker.as_ or store.instance.auditor
        if not who:
            raise Misconfigured("say who you are: --as PERSON")
        desk = AuditDesk(store.state, store.instance, loaded.point, store.control.snapshot)
        person = desk.sign_in(who, password_of(store.state, who))
        recorded = dict(parameters)
        if about is not None:
            recorded["person"] = desk.uid_of(about) or "unknown"
        if asker.patient is not None:
            recorded["patient"] = token_of(asker.patient, store.state, loaded.data_map)
        version = loaded.version
        if asker.policies is not None:
            version = open_bundle(bundle_of(asker.policies, asker.state))
            recorded["candidate"] = version.hash
        index = desk.ask(person, question, lambda _: recorded, purpose=asker.purpose)
        note = (
            f"Asked by {person.full_name} ({person.name}); "
            f"the question is event {index} of the log."
        )
        patient = None
        if asker.patient is not None:
            patient = read(asker.patient, store.state, store.instance, loaded.data_map, version)
        people = store.control.snapshot().persons
        source = store.instance.source
        yield Setting(version, people, source, note, index, person.name, patient=patient)


def _no_instance(asker: Asker) -> bool:
    """Whether nothing was ever started where one would look first."""
    return asker.state is None and not State(default_root().absolute()).instance_file.exists()


def holders(version: PolicyVersion, known: Known) -> dict[str, Person]:
    """One made-up holder of each role, in a department that the record speaks of if it does."""
    places = [
        uid.id
        for value in known.values()
        for uid in (value if isinstance(value, CedarSet) else (value,))
        if isinstance(uid, EntityUid) and uid.type == "Department"
    ]
    where = places[0] if places else _OWN_DEPARTMENT
    return {
        role: Person(
            role, role, role, active=True,
            assignments=(Assignment(role, where, _ALWAYS, None, _REFERENCE),),
        )
        for role in version.roles.roles
    }  # fmt: skip


def role_person(text: str, version: PolicyVersion, reference: str | None) -> Person:
    """``physician@cardiology``: somebody who holds that role there."""
    roles = []
    for one in text.split("+"):
        role, _, department = one.partition("@")
        if role not in version.roles.roles:
            known = ", ".join(version.roles.roles)
            raise Misconfigured(f"there is no role {role!r}; there are {known}")
        roles.append(Assignment(role, department or None, _ALWAYS, None, reference))
    name = f"somebody who is {text}"
    return Person("somebody", "somebody", name, active=True, assignments=tuple(roles))


def people_of(path: Path, version: PolicyVersion) -> dict[str, Person]:
    """People from a TOML file: ``[[person]]`` with ``name`` and ``[[person.assignment]]`` tables."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise Misconfigured(f"cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise Misconfigured(f"{path.name}: {exc}") from exc
    found: dict[str, Person] = {}
    for table in _tables(document, "person", path.name):
        name = _text(table, "name", path.name)
        where = f"{path.name}: person {name!r}"
        if name in found:
            raise Misconfigured(f"{where} is there twice")
        held = tuple(_assignment(a, where, version) for a in _tables(table, "assignment", where))
        full, active = table.pop("full_name", name), table.pop("active", True)
        if table or not isinstance(full, str) or not isinstance(active, bool):
            raise Misconfigured(f"{where}: a person has name, full_name, active, assignment")
        found[name] = Person(name, name, full, active, held)
    if document:
        raise Misconfigured(f"{path.name}: a file of people consists of [[person]] tables")
    return found


def _tables(document: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    found = document.pop(key, [])
    if not isinstance(found, list) or not all(isinstance(t, dict) for t in found):
        raise Misconfigured(f"{where}: {key} is a list of tables, [[{key}]]")
    return found


def _text(table: dict[str, Any], key: str, where: str) -> str:
    found = table.pop(key, None)
    if not isinstance(found, str) or not found:
        raise Misconfigured(f"{where}: {key} is missing, or not a text")
    return found


def _assignment(table: dict[str, Any], where: str, version: PolicyVersion) -> Assignment:
    role = _text(table, "role", where)
    if role not in version.roles.roles:
        raise Misconfigured(f"{where}: there is no role {role!r}")
    words = {
        key: _text(table, key, where) if key in table else None
        for key in ("department", "reference", "patient")
    }
    times = {key: _moment(table.pop(key, None), f"{where}: {key}") for key in ("from", "until")}
    if table:
        raise Misconfigured(f"{where}: unknown key {', '.join(sorted(table))}")
    began, until = times["from"] or _ALWAYS, times["until"]
    return Assignment(
        role, words["department"], began, until, words["reference"], patient=words["patient"]
    )


def _moment(found: object, where: str) -> datetime | None:
    if isinstance(found, datetime) and found.tzinfo is not None:
        return found
    if isinstance(found, date) and not isinstance(found, datetime):
        return datetime(found.year, found.month, found.day, tzinfo=UTC)
    if found is not None:
        raise Misconfigured(f"{where} is a day, or a time with its zone")
    return None


def moment(text: str | None) -> datetime:
    """``--at``: a day or a time in RFC 3339; now, when nothing is said."""
    if text is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Misconfigured(
            "--at takes a day or a time, as 2026-03-02 or 2026-03-02T14:30Z"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def labels_of(text: str | None) -> tuple[str, ...]:
    """``labs+protected_person``: a category and further labels."""
    return tuple(part for part in (text or "").split("+") if part)


def record_of(pairs: Sequence[str], version: PolicyVersion, herself: str | None = None) -> Known:
    """``departments=cardiology,oncology`` and the like, by the schema's own names."""
    attributes = record_attributes(version.schema)
    known: dict[str, Value | None] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in attributes or name == "category":
            names = ", ".join(n for n in attributes if n != "category")
            raise Misconfigured(f"--record takes KEY=VALUE; the keys are {names}")
        if name in known:
            raise Misconfigured(f"--record {name} is given twice: several values go behind commas")
        known[name] = _value(attributes[name], name, text, herself)
    if "patient" in known and known["patient"] is None:
        # A row about no patient has nobody who treats the patient.
        for name, attribute in attributes.items():
            if isinstance(attribute.type, SetType):
                known.setdefault(name, CedarSet.of(()))
    return known


def complete(known: Known, version: PolicyVersion) -> tuple[dict[str, Value], tuple[str, ...]]:
    """A whole record: what was not said is none; the second part names what that was."""
    record = {name: value for name, value in known.items() if value is not None}
    assumed = []
    for name, attribute in record_attributes(version.schema).items():
        if name in known or name == "category":
            continue
        if isinstance(attribute.type, SetType):
            record[name] = CedarSet.of(())
            assumed.append(name)
        elif attribute.type == EntityRef("Patient"):
            record[name] = SOMEBODY
    return record, tuple(assumed)


def _value(attribute: Attribute, name: str, text: str, herself: str | None) -> Value | None:
    kind = attribute.type
    words = [w.strip() for w in text.split(",") if w.strip() and w.strip() != NONE]
    if isinstance(kind, SetType):
        return CedarSet.of(_single(kind.element, name, word, herself) for word in words)
    if not words:
        return None
    if len(words) > 1:
        raise Misconfigured(f"--record {name} takes one value")
    return _single(kind, name, words[0], herself)


def _single(kind: Type, name: str, word: str, herself: str | None) -> Value:
    match kind:
        case EntityRef("User") if word == SELF:
            if herself is None:
                raise Misconfigured(
                    f"--record {name}: nobody in particular is asked about: no self"
                )
            return EntityUid("User", herself)
        case EntityRef(type_):
            return EntityUid(type_, word)
        case PrimitiveType("Bool") if word in {"true", "false"}:
            return word == "true"
        case PrimitiveType("Long") if word.lstrip("-").isdecimal():
            return int(word)
        case PrimitiveType("String"):
            return word
    raise Misconfigured(f"--record {name} does not take such a value")
