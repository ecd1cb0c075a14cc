"""A counterexample: one person, one record, one moment; asked of the policies once more, and told.

The rule kept: a solver's model is a suggestion. It becomes a person with assignments and a record
as everything else here has them, is decided by the reference meaning (``chartgate.app.levels``),
and only what stands there is shown. It is told in words, and as a scenario that anyone can keep.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from chartgate.app.levels import (
    RECORD,
    ActionAnswer,
    Asking,
    LevelAnswer,
    level_of,
    may_change,
    may_govern,
    may_read_log,
)
from chartgate.app.rolebook import RoleBook, person_entity
from chartgate.app.scenario_context import circumstances_text
from chartgate.app.scenarios import AGES, SELF, SOMEBODY
from chartgate.cedar.ast import Expr, Policy, PolicySet
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.values import CedarSet, DateTime, RecordValue, Value
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.smt.gate import CATEGORY, Question
from chartgate.targets.smt.gate import RECORD as RECORD_TYPE
from chartgate.targets.smt.model import Reading

FROM_ASSIGNMENT: Final = {
    "departments": "department",
    "references": "reference",
    "patients": "patient",
}
"""The sets of a person's that her assignments make (``rolebook.person_entity``): one member each."""
_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LEVELS: Final = {action: level for level, action in VIEW_ACTIONS.items()}
NAMES: Final = {
    "User": "person",
    "Department": "department",
    "Patient": "patient",
    "Record": "record",
    "text": "text",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A request, complete: who asks for what, under which label, in which circumstances."""

    who: Person
    action: str
    kind: str
    """The type of what is asked for."""
    category: str | None
    record: RecordValue
    context: RecordValue

    # --- asking ------------------------------------------------------------------------------

    def asking(self, policies: PolicySet, roles: RoleBook) -> Asking:
        """The question as ``levels`` takes it."""
        hierarchy = roles.entities()
        assignments = self.who.assignments
        return Asking(
            policies=policies,
            entities=hierarchy.with_(person_entity(self.who, assignments)),
            principal=EntityUid("User", self.who.name),
            context=self.context,
            parts=tuple(hierarchy.with_(person_entity(self.who, (a,))) for a in assignments),
        )

    def answer(self, policies: PolicySet, roles: RoleBook) -> LevelAnswer | ActionAnswer:
        """What the policies say: the level of the cell, or whether the action is allowed."""
        asking = self.asking(policies, roles)
        if self.category is None:
            may = may_read_log if self.kind == "AuditLog" else may_govern
            return may(asking, self.action)
        if self.action in _LEVELS:
            return level_of(asking, self.record, self.category)
        return may_change(asking, self.action, self.record, (self.category,))

    def level(self, policies: PolicySet, roles: RoleBook) -> Disclosure:
        """The level of the cell; only for a viewing action."""
        answer = self.answer(policies, roles)
        assert isinstance(answer, LevelAnswer)
        return answer.level

    def is_allowed(self, policies: PolicySet, roles: RoleBook) -> bool:
        """Whether the action is allowed; of a viewing action: whether its level is reached."""
        answer = self.answer(policies, roles)
        if isinstance(answer, LevelAnswer):
            return answer.level >= _LEVELS[self.action]
        return answer.allowed

    def meets(self, condition: Expr, roles: RoleBook, *, part: bool) -> bool:
        """Whether a condition is true of the person, or of her first assignment alone."""
        try:
            return evaluate(condition, self._env(roles, part=part)) is True
        except EvaluationError:
            return False

    def counts(self, policy: Policy, roles: RoleBook, *, part: bool) -> bool:
        """Whether a policy holds as the gate takes it: a forbid that fails does."""
        try:
            return evaluate(policy.condition(), self._env(roles, part=part)) is True
        except EvaluationError:
            return policy.effect == "forbid"

    def fails(self, policy: Policy, roles: RoleBook) -> bool:
        """Whether a policy has no value for the person as she is."""
        try:
            evaluate(policy.condition(), self._env(roles, part=False))
        except EvaluationError:
            return True
        return False

    def _env(self, roles: RoleBook, *, part: bool) -> Env:
        assignments = self.who.assignments[:1] if part else self.who.assignments
        resource, attributes = EntityUid(self.kind, "asked"), self.record
        if self.category is not None:
            resource = RECORD
            label: Value = EntityUid("Category", self.category)
            attributes = RecordValue({**self.record, CATEGORY: label})
        entities: Entities = roles.entities().with_(
            person_entity(self.who, assignments), Entity(resource, attributes)
        )
        return Env(
            EntityUid("User", self.who.name),
            EntityUid("Action", self.action),
            resource,
            self.context,
            entities,
        )

    # --- telling -----------------------------------------------------------------------------

    @property
    def purpose(self) -> str:
        """The purpose that is claimed."""
        found = self.context["purpose"]
        return found.id if isinstance(found, EntityUid) else ""

    @property
    def now(self) -> datetime | None:
        """The moment, where Python's calendar has it."""
        found = self.context.get("now")
        if not isinstance(found, DateTime):
            return None
        try:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=found.ms)
        except OverflowError:
            return None

    def words(self, policies: PolicySet, roles: RoleBook) -> str:
        """Who gets what, and by which policies."""
        answer = self.answer(policies, roles)
        if isinstance(answer, LevelAnswer):
            got = _SEES[answer.level].format(self.category)
        else:
            may = "may" if answer.allowed else "may not"
            got = f"{may} {self.action} {self.category or _THINGS.get(self.kind, self.kind)}"
        by = ", ".join(answer.determining)
        because = f"because of {by}" if by else "because no policy permits it"
        about = f" of {self._record_words()}" if self.category else ""
        said = circumstances_text(self.context)
        where = f" with {said}" if said else " in such circumstances" if said is None else ""
        return f"{self._who_words()}, asking for {self.purpose}{where}, {got}{about}, {because}"

    def _who_words(self) -> str:
        said = []
        for a in self.who.assignments:
            words = a.role
            words += f" of {a.department}" if a.department else ""
            words += f" for {a.patient}" if a.patient else ""
            words += f" (on {a.reference})" if a.reference else ""
            said.append(words)
        return f"{self.who.name}, {' and '.join(dict.fromkeys(said))}"

    def _record_words(self) -> str:
        record, me = self.record, EntityUid("User", self.who.name)
        patient = record.get("patient")
        words = ["a record"]
        words.append(f"of {patient.id}" if isinstance(patient, EntityUid) else "about no patient")
        for name, said in _SETS:
            if members := _names(record.get(name)):
                words.append(f"{said} {' and '.join(members)}")
        team = record.get("care_team")
        if isinstance(team, CedarSet) and me in team:
            words.append("with the person on the care team")
        if isinstance(place := record.get("department"), EntityUid):
            words.append(f"in {place.id}")
        if isinstance(author := record.get("author"), EntityUid):
            words.append(f"written by {'the person' if author == me else author.id}")
        return " ".join(words)

    def scenario(self, title: str, expect: str, clause: str) -> str | None:
        """A ``[[scenario]]`` that expects what should hold; None if a scenario cannot say it."""
        first, *more = self.who.assignments
        if any(a.reference != first.reference for a in more):
            return None
        who = {
            "role": first.role,
            "name": self.who.name,
            "department": first.department,
            "reference": first.reference,
            "patient": first.patient,
        }
        lines = ["[[scenario]]", f"title = {quoted(title)}", f"clause = {quoted(clause)}"]
        person = [f"{key} = {quoted(text)}" for key, text in who.items() if text]
        if more:
            person.append(f"also = {_list(_also(a, first) for a in more)}")
        lines.append(f"who = {{ {', '.join(person)} }}")
        lines.append(f"purpose = {quoted(self.purpose)}")
        lines.append(f"asks = {quoted('view' if self.action in _LEVELS else self.action)}")
        if self.category is not None:
            row = self._row()
            if row is None:
                return None
            lines.append(f"record = {{ {', '.join(row)} }}")
        said = circumstances_text(self.context)
        if said is None:
            return None
        if said:
            lines.append(f"context = {said}")
        lines.append(f"expect = {quoted(expect)}")
        return "\n".join(lines) + "\n"

    def _row(self) -> list[str] | None:
        record, me = self.record, self.who.name
        row = [f"category = {quoted(self.category or '')}"]
        for name in ("departments", "queues", "care_team"):
            if members := _names(record.get(name)):
                shown = [SELF if name == "care_team" and m == me else m for m in members]
                row.append(f"{name} = {_list(quoted(m) for m in shown)}")
        for name in ("department", "author"):
            if isinstance(found := record.get(name), EntityUid):
                who = SELF if name == "author" and found.id == me else found.id
                row.append(f"{name} = {quoted(who)}")
        patient, ages = record.get("patient"), _names(record.get("age_bands"))
        if len(ages) > 1 or (ages and (patient is None or ages[0] not in AGES)):
            return None
        if not isinstance(patient, EntityUid):
            row.append("patient = false")
        elif patient.id != SOMEBODY:
            row.append(f"whose = {quoted(patient.id)}")
        if ages:
            row.append(f"age = {quoted(ages[0])}")
        return row


_SETS: Final = (
    ("departments", "treated in"),
    ("queues", "in the queue of"),
    ("age_bands", "who is"),
)
_THINGS: Final = {"AuditLog": "the audit log", "PolicyStore": "the policy store"}
_SEES: Final = {
    Disclosure.FULL: "sees {} in full",
    Disclosure.SUMMARY: "sees {} in summary",
    Disclosure.MASKED: "sees {} masked",
    Disclosure.WITHHELD: "sees nothing of {}",
}


def quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else f"\\{c}" if c in '"\\' else c
        for c in text
    )
    return f'"{escaped}"'


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(texts)}]"


def _also(assignment: Assignment, first: Assignment) -> str:
    place = assignment.department
    words = assignment.role + (f"@{place}" if place and place != first.department else "")
    return quoted(words + (f" for {assignment.patient}" if assignment.patient else ""))


def _names(found: Value | None) -> tuple[str, ...]:
    if not isinstance(found, CedarSet):
        return ()
    return tuple(sorted(m.id for m in found if isinstance(m, EntityUid)))


# --- from a model ---------------------------------------------------------------------------------


def example_of(question: Question, reading: Reading, action: str) -> Example:
    """The request that a model describes."""
    scene, thing = question.scene, question.thing
    person = scene.person
    name = reading.uid(person.uid).id
    attributes = reading.value(thing.attributes)
    context = reading.value(scene.context(action))
    assert isinstance(attributes, RecordValue)
    assert isinstance(context, RecordValue)
    category = attributes.get(CATEGORY) if thing.uid.type == RECORD_TYPE else None
    return Example(
        who=Person(name, name, name, True, _assignments(question, reading)),
        action=action,
        kind=thing.uid.type,
        category=category.id if isinstance(category, EntityUid) else None,
        record=RecordValue([(n, v) for n, v in attributes.items() if n != CATEGORY]),
        context=context,
    )


def _assignments(question: Question, reading: Reading) -> tuple[Assignment, ...]:
    """The part, then as many further assignments as the whole needs."""
    person = question.scene.person
    part, whole = reading.value(person.part), reading.value(person.whole)
    assert isinstance(part, RecordValue)
    assert isinstance(whole, RecordValue)
    role = next(n for n, held in person.part_roles.items() if reading.truth(held))
    others = [n for n, held in person.whole_roles.items() if reading.truth(held) and n != role]
    own = {n: _texts(part.get(n)) for n in FROM_ASSIGNMENT}
    left = {n: [t for t in _texts(whole.get(n)) if t not in own[n]] for n in FROM_ASSIGNMENT}
    first = _assignment(role, {n: own[n][0] for n in own if own[n]})
    count = max(len(others), *(len(texts) for texts in left.values()))
    return (
        first,
        *(
            _assignment(
                others[n] if n < len(others) else role,
                {name: texts[n] for name, texts in left.items() if n < len(texts)},
            )
            for n in range(count)
        ),
    )


def _assignment(role: str, given: Mapping[str, str]) -> Assignment:
    by_field = {FROM_ASSIGNMENT[name]: text for name, text in given.items()}
    return Assignment(
        role,
        by_field.get("department"),
        _ALWAYS,
        None,
        by_field.get("reference"),
        by_field.get("patient"),
    )


def _texts(found: Value | None) -> list[str]:
    if not isinstance(found, CedarSet):
        return []
    return sorted(m.id if isinstance(m, EntityUid) else str(m) for m in found)
