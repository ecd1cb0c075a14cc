"""Policy scenarios: a compliance officer's expectation in words, held against the policies.

The rule kept (45 CFR 164.316(b), policies in writing; 164.308(a)(8), evaluation): each scenario
says who asks for what, for which purpose, and how much she must see. Expectations are written by
people, never computed from the policies. A key or word that is not known is a fault of the file,
so that a misspelt line cannot pass as a check.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final

from chartgate.app.levels import (
    ActionAnswer,
    Asking,
    LevelAnswer,
    level_of_labels,
    may_change,
    may_govern,
    may_read_log,
)
from chartgate.app.rolebook import RoleBook, person_entity
from chartgate.app.scenario_context import InvalidScenario, read_circumstances
from chartgate.cedar.ast import Policy, PolicySet, Scope
from chartgate.cedar.entities import Entities
from chartgate.cedar.values import CedarSet, DateTime, RecordValue, Value
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import Assignment, EntityUid, Person

CATEGORIES: Final = (
    "demographics", "gov_ids", "record_ids", "insurance", "scheduling", "clinical_summary",
    "notes", "labs", "imaging", "medications", "vitals_nursing", "billing", "behavioral_health",
    "psychotherapy_notes", "sud_part2", "repro_sti_hiv", "genetic", "protected_person",
    "audit_log", "technical",
)  # fmt: skip
CHANGES: Final = ("create", "update", "delete", "share", "export")
LOG_READS: Final = ("read_audit", "read_audit_technical")
STORE_STEPS: Final = (
    "edit_policy", "approve_policy", "activate_policy", "administer_services", "approve_grant",
)  # fmt: skip
SELF: Final = "self"
"""In ``care_team`` and ``author``: the person who asks."""
SOMEBODY: Final = "the patient"
"""Whose record it is when a scenario does not say."""
AGES: Final = ("child", "adolescent", "adult")
ANY_PERMIT: Final = Policy("a permit for everything", "permit")
"""What a guardrail must withstand."""
_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """The record of a scenario: its category and further labels, and what its row says."""

    category: str
    labels: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    care_team: tuple[str, ...] = ()
    department: str | None = None
    author: str | None = None
    patient: bool = True
    whose: str = SOMEBODY
    queues: tuple[str, ...] = ()
    age: str | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One expectation.

    ``even_if_permitted``: it must hold although a policy permits everything, which is how a
    guardrail is tried.
    """

    file: str
    title: str
    who: Person
    purpose: str
    asks: str
    expect: str
    record: Row | None = None
    clause: str | None = None
    even_if_permitted: bool = False
    context: RecordValue = field(default_factory=RecordValue)
    """What is said of her session, beside the purpose."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a scenario, and the policies that decided."""

    scenario: Scenario
    got: str
    determining: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the policies do what the scenario expects."""
        return self.got == self.scenario.expect

    @property
    def message(self) -> str:
        """In words: who gets what instead of what, and by which policies."""
        s = self.scenario
        if self.passed:
            return f"{s.title}: {self.got}, as expected"
        by = f"because of {', '.join(self.determining)}" if self.determining else _NO_PERMIT
        return f"{s.file}: {s.title}: expected {s.expect}, but {_who(s)} {_gets(s, self.got)}, {by}"


_NO_PERMIT: Final = "because no policy permits more"


def _who(scenario: Scenario) -> str:
    roles = " and ".join(dict.fromkeys(a.role for a in scenario.who.assignments))
    places = ", ".join(
        dict.fromkeys(a.department for a in scenario.who.assignments if a.department)
    )
    where = f" of {places}" if places else ""
    return f"{scenario.who.name} ({roles}{where}), asking for {scenario.purpose},"


def _gets(scenario: Scenario, got: str) -> str:
    what = (
        " + ".join((scenario.record.category, *scenario.record.labels)) if scenario.record else ""
    )
    if scenario.asks == "view":
        return {
            "full": f"sees {what} in full",
            "withheld": f"sees nothing of {what}",
        }.get(got, f"sees {what} at the level {got}")
    return f"{'may' if got == 'allowed' else 'may not'} {scenario.asks} {what}".rstrip()


# --- reading ---------------------------------------------------------------------------------


def read_scenarios(file: str, document: Mapping[str, Any]) -> tuple[Scenario, ...]:
    """The scenarios of one parsed TOML file, strictly: unknown keys and words are faults."""
    tables = document.get("scenario")
    if set(document) != {"scenario"} or not isinstance(tables, list) or not tables:
        raise InvalidScenario(f"{file}: a scenario file consists of [[scenario]] tables")
    scenarios = tuple(_scenario(file, n, table) for n, table in enumerate(tables, start=1))
    seen: set[str] = set()
    for scenario in scenarios:
        if scenario.title in seen:
            raise InvalidScenario(f"{file}: two scenarios are titled {scenario.title!r}")
        seen.add(scenario.title)
    return scenarios


class _Table:
    """A TOML table that is read key by key; a key left over is a fault."""

    def __init__(self, where: str, form: Any) -> None:
        if not isinstance(form, Mapping):
            raise InvalidScenario(f"{where}: not a table")
        self._where = where
        self._left = dict(form)

    def text(self, key: str, default: str | None = None) -> str:
        found = self.optional(key)
        if found is None:
            found = default
        if found is None:
            raise InvalidScenario(f"{self._where}: {key} is missing")
        return found

    def optional(self, key: str) -> str | None:
        found = self._left.pop(key, None)
        if found is not None and (not isinstance(found, str) or not found):
            raise InvalidScenario(f"{self._where}: {key} is not a text")
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        found = self._left.pop(key, [])
        if not isinstance(found, list) or not all(isinstance(t, str) and t for t in found):
            raise InvalidScenario(f"{self._where}: {key} is not a list of texts")
        return tuple(found)

    def flag(self, key: str, *, default: bool) -> bool:
        found = self._left.pop(key, default)
        if not isinstance(found, bool):
            raise InvalidScenario(f"{self._where}: {key} is true or false")
        return found

    def any(self, key: str) -> Any:
        return self._left.pop(key, None)

    def end(self) -> None:
        if self._left:
            raise InvalidScenario(f"{self._where}: unknown key {', '.join(sorted(self._left))}")


def _scenario(file: str, number: int, form: Any) -> Scenario:
    title = form.get("title") if isinstance(form, Mapping) else None
    where = f"{file}: {title!r}" if isinstance(title, str) else f"{file}: scenario {number}"
    table = _Table(where, form)
    asks = _one_of(where, "asks", table.text("asks"), ("view", *CHANGES, *LOG_READS, *STORE_STEPS))
    expected = (
        tuple(level.label for level in Disclosure) if asks == "view" else ("allowed", "refused")
    )
    row = table.any("record")
    about_none = (*LOG_READS, *STORE_STEPS)
    if (row is None) != (asks in about_none):
        raise InvalidScenario(f"{where}: every question but {', '.join(about_none)} names a record")
    scenario = Scenario(
        file=file,
        title=table.text("title"),
        who=_person(f"{where}: who", table.any("who")),
        purpose=table.text("purpose"),
        asks=asks,
        expect=_one_of(where, "expect", table.text("expect"), expected),
        record=None if row is None else _row(f"{where}: record", row),
        clause=table.optional("clause"),
        even_if_permitted=table.flag("even_if_permitted", default=False),
        context=read_circumstances(f"{where}: context", table.any("context")),
    )
    table.end()
    return scenario


def _person(where: str, form: Any) -> Person:
    table = _Table(where, form)
    department, reference = table.optional("department"), table.optional("reference")
    until, patient = _until(where, table.any("assignment_until")), table.optional("patient")
    assignments = [Assignment(table.text("role"), department, _ALWAYS, until, reference, patient)]
    for other in table.texts("also"):
        # "role", in the same department, or "role@department"; "role for patient"
        role, _, whom = other.partition(" for ")
        role, _, elsewhere = role.partition("@")
        assignments.append(
            Assignment(role, elsewhere or department, _ALWAYS, until, reference, whom or None)
        )
    name = table.text("name", "the person")
    table.end()
    return Person(uid=name, name=name, full_name=name, active=True, assignments=tuple(assignments))


def _until(where: str, found: Any) -> datetime | None:
    # datetime first: to Python it is a date as well.
    if isinstance(found, datetime):
        if found.tzinfo is None:
            raise InvalidScenario(f"{where}: assignment_until has no time zone")
        return found
    if isinstance(found, date):
        return datetime(found.year, found.month, found.day, tzinfo=UTC)
    if found is not None:
        raise InvalidScenario(f"{where}: assignment_until is not a date")
    return None


def _row(where: str, form: Any) -> Row:
    table = _Table(where, form)
    row = Row(
        category=_one_of(where, "category", table.text("category"), CATEGORIES),
        labels=tuple(_one_of(where, "labels", c, CATEGORIES) for c in table.texts("labels")),
        departments=table.texts("departments"),
        care_team=table.texts("care_team"),
        department=table.optional("department"),
        author=table.optional("author"),
        patient=table.flag("patient", default=True),
        whose=table.text("whose", SOMEBODY),
        queues=table.texts("queues"),
        age=table.optional("age"),
    )
    table.end()
    if row.age is not None:
        _one_of(where, "age", row.age, AGES)
    if not row.patient and (row.whose != SOMEBODY or row.age is not None):
        raise InvalidScenario(f"{where}: a row about no patient says nothing of one")
    return row


def _one_of(where: str, key: str, word: str, words: Sequence[str]) -> str:
    if word not in words:
        raise InvalidScenario(f"{where}: {key} is one of {', '.join(words)}; not {word!r}")
    return word


# --- running ---------------------------------------------------------------------------------


def run(
    scenarios: Iterable[Scenario], policies: PolicySet, roles: RoleBook, now: datetime
) -> list[Result]:
    """The results, in order. Only assignments that are live at ``now`` count.

    The policies answer alone: the gateway also refuses a purpose that no role of the person lists.
    """
    hierarchy = roles.entities()
    asked = list(scenarios)
    about = {asks: _that_name(policies, asks, hierarchy) for asks in {s.asks for s in asked}}
    return [_result(scenario, about[scenario.asks], roles, hierarchy, now) for scenario in asked]


def _that_name(policies: PolicySet, asks: str, hierarchy: Entities) -> PolicySet:
    """The policies whose scope admits what is asked; ``view`` asks for every level of seeing."""
    names = VIEW_ACTIONS.values() if asks == "view" else (asks,)
    actions = [EntityUid("Action", name) for name in names]
    found = (
        policy
        for policy in policies.policies
        if any(_admits(policy.action, one, hierarchy.ancestors(one)) for one in actions)
    )
    return PolicySet(tuple(found), policies.hash)


def _about(policies: PolicySet, who: EntityUid, above: frozenset[EntityUid]) -> PolicySet:
    """The policies whose scope admits her, all of whose groups are ``above``."""
    found = (policy for policy in policies.policies if _admits(policy.principal, who, above))
    return PolicySet(tuple(found), policies.hash)


def _admits(scope: Scope, uid: EntityUid, above: frozenset[EntityUid]) -> bool:
    """False only where the scope is false.

    A policy is its scope && its clauses, and a scope never fails: one that admits nothing asked
    here has neither an effect nor an error, so that passing over it changes no answer.
    """
    if scope.op == "==":
        return uid in scope.entities
    if scope.op in ("in", "is in"):
        return not above.isdisjoint(scope.entities)
    return True


def _result(
    scenario: Scenario, policies: PolicySet, roles: RoleBook, hierarchy: Entities, now: datetime
) -> Result:
    where, person = f"{scenario.file}: {scenario.title!r}", scenario.who
    if scenario.purpose not in roles.purposes:
        raise InvalidScenario(f"{where}: there is no purpose {scenario.purpose}")
    for assignment in person.assignments:
        if assignment.role not in roles.roles:
            raise InvalidScenario(f"{where}: there is no role {assignment.role}")
    live = person.live(at=now)
    user = person_entity(person, live)
    if scenario.even_if_permitted:
        policies = PolicySet((*policies.policies, ANY_PERMIT), policies.hash)
    entities = hierarchy.with_(user)
    parts = tuple(hierarchy.with_(person_entity(person, (part,))) for part in live)
    above = [store.ancestors(user.uid) for store in (entities, *parts)]
    asking = Asking(
        policies=_about(policies, user.uid, frozenset().union(*above)),
        entities=entities,
        principal=user.uid,
        parts=parts,
        context=RecordValue(
            (
                ("purpose", EntityUid("Purpose", scenario.purpose)),
                ("now", DateTime(int(now.timestamp() * 1000))),
                ("source", "scenario"),
                *scenario.context.items(),
            )
        ),
    )
    answer = _ask(scenario, asking)
    if isinstance(answer, LevelAnswer):
        return Result(scenario, answer.level.label, answer.determining)
    return Result(scenario, "allowed" if answer.allowed else "refused", answer.determining)


def _ask(scenario: Scenario, asking: Asking) -> LevelAnswer | ActionAnswer:
    row = scenario.record
    if row is None and scenario.asks in STORE_STEPS:
        return may_govern(asking, scenario.asks)
    if row is None:
        return may_read_log(asking, scenario.asks)
    record = record_of(row, scenario.who)
    labels = (row.category, *row.labels)
    if scenario.asks == "view":
        return level_of_labels(asking, record, labels)
    return may_change(asking, scenario.asks, record, labels)


def record_of(row: Row, who: Person) -> Mapping[str, Value]:
    """The row's attributes as Cedar sees them, without the category."""
    people = [who.uid if name == SELF else name for name in row.care_team]
    attributes: dict[str, Value] = {
        "departments": _uids("Department", row.departments),
        "care_team": _uids("User", people),
        "queues": _uids("Department", row.queues),
        "age_bands": _uids("AgeBand", (row.age,)),
    }
    if row.patient:
        attributes["patient"] = EntityUid("Patient", row.whose)
    if row.department is not None:
        attributes["department"] = EntityUid("Department", row.department)
    if row.author is not None:
        attributes["author"] = EntityUid("User", who.uid if row.author == SELF else row.author)
    return RecordValue(attributes)


def _uids(kind: str, names: Iterable[str | None]) -> CedarSet:
    return CedarSet.of([EntityUid(kind, name) for name in names if name is not None])


# --- what the scenarios do not reach -----------------------------------------------------------


def unused(results: Iterable[Result], policies: PolicySet) -> tuple[str, ...]:
    """The policies that decided no scenario: untested, or without effect."""
    used = {policy_id for result in results for policy_id in result.determining}
    return tuple(policy.id for policy in policies.policies if policy.id not in used)
