"""A node for the benchmark of the decision service: everything is real but where it comes from.

Policies, people and what is known of patients follow from ``policy_family`` instead of PostgreSQL; the
decision core, the events, the log and the doors are those of the product. Two questions of each:

- ``records``: a record's category, answered in levels, the patient named, as the product is meant to be
  asked; the care team comes from what the source says of the patient;
- ``plain``: the same policies over a kind of resource without levels, all attributes sent by the
  application: word for word what Cerbos is asked.
"""

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import policy_family as family

from chartgate.adapters.audit_log import AuditLog
from chartgate.app.evaluation_events import CachedTokens, evaluation_events
from chartgate.app.node_asked import Answered, Asked, Caller, Readiness, UnknownCaller
from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.rulings import Rulings
from chartgate.app.standing import PersonStandings
from chartgate.app.tokens import PatientTokens
from chartgate.datamap.model import DataMap, PatientTable
from chartgate.model.principal import Assignment, Person
from chartgate.model.service import EVERYTHING, Service

TOKEN = "cgs_benchmark_0123456789abcdefghijklmnopqrstuvwxyz"
PEOPLE = 1_000
REQUESTS = 400
SERVICE = Service(uid="svc-bench", name="bench", active=True, scope=EVERYTHING)
_MAP = DataMap("bench", "", "public", PatientTable("patient", "id", "mrn"), {}, {}, (), "0" * 64)
_EVER = datetime(2020, 1, 1, tzinfo=UTC)


def version(kind: str, count: int) -> PolicyVersion:
    """So many policies of the family; ``plain`` names the resource type ``Chart``."""
    rules = family.rules(count)
    files = {
        "schema.cedarschema": family.SCHEMA,
        "policies.cedar": "\n".join(family.cedar(rule) for rule in rules),
        "roles.toml": "\n".join(
            f"[roles.{name}]\nparents = {list(parents)}\npurposes = {list(family.PURPOSES)}"
            for name, parents in family.ROLES.items()
        ),
        "purposes.toml": "\n".join(
            f"{name} = {list(parents)}" for name, parents in family.PURPOSES.items()
        ),
    }
    if kind == "records":
        names = ", ".join(f'"{name}"' for name in family.CATEGORIES)
        schema = family.SCHEMA.replace("entity Category;", f"entity Category enum [{names}];")
        files["schema.cedarschema"] = schema
    else:
        schema = re.sub(r"\bRecord\b", "Chart", files["schema.cedarschema"])
        files["schema.cedarschema"] = schema
    return open_bundle(Bundle(files))


def person(number: int) -> Person:
    """As the control plane holds her: each role in each department."""
    entity = family.person(number)
    roles = sorted(uid.id for uid in entity.parents)
    departments = sorted(uid.id for uid in entity.attrs["departments"])  # type: ignore[union-attr]
    held = tuple(
        Assignment(role, department, _EVER, None) for role in roles for department in departments
    )
    return Person(f"p{number:08x}", entity.uid.id, "", True, held)


def requests() -> list[family.Request]:
    """The questions, always the same."""
    return family.requests(REQUESTS, PEOPLE, 3)


def question(kind: str, number: int, request: family.Request) -> Question:
    """One of them, as an application asks it."""
    said = dict(request.attributes)
    context = {"purpose": request.purpose}
    subject = Subject("User", request.person.id)
    action = Action(request.action.id)
    if kind == "plain":
        return Question(subject, action, Resource("Chart", f"r{number}", said), context)
    del said["care_team"]
    said["patient"] = f"patient{number}"
    return Question(subject, action, Resource("Record", f"r{number}", said), context)


class BenchNode:
    """Decides, records, answers. Without a log nothing is recorded: to tell the parts apart."""

    epoch = 1

    def __init__(
        self, kind: str, count: int, log: AuditLog | None, *, durable: bool = True
    ) -> None:
        made = version(kind, count)
        people = {f"u{number}": person(number) for number in range(PEOPLE)}
        data_map = _MAP if kind == "records" else None
        self.rulings = Rulings(made, PersonStandings(people, made.roles), data_map=data_map)
        for _ in self.rulings.warming():
            pass
        self._facts = {
            f"patient{number}": PatientRecord({"care_team": request.record.attrs["care_team"]}, ())
            for number, request in enumerate(requests())
        }
        self._log = log
        self._durable = durable
        self._tokens = CachedTokens(PatientTokens({datetime.now(UTC).year: bytes(32)}, "bench"))
        schema = made.schema
        self._names = frozenset((*(uid.id for uid in schema.actions), *schema.entities))

    def is_ready(self) -> Readiness:
        return Readiness()

    def service_of_token(self, token: str) -> Service:
        if token != TOKEN:
            raise UnknownCaller("a credential that is nobody's")
        return SERVICE

    def service_of_certificate(self, fingerprint: str, subject: str = "") -> Service:
        raise UnknownCaller("a certificate that is nobody's")

    def service_named(self, name: str) -> Service:
        raise UnknownCaller("a name that is nobody's")

    async def refuse_caller(self, reason: str, **_: str) -> None:
        """Nobody watches."""

    async def search(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def decide(self, questions: Sequence[Question], at_ms: int) -> list[Any]:
        """Rulings alone."""
        rulings, facts = self.rulings, self._facts
        if len(questions) == 1:
            (one,) = questions
            return [rulings.rule(one, EVERYTHING, facts.get(rulings.patient_of(one) or ""), at_ms)]
        return rulings.rule_many(questions, EVERYTHING, facts, at_ms)

    def events(
        self, asked: Asked, rulings: Sequence[Any], caller: Caller, now: float
    ) -> tuple[bytes, ...]:
        """What is recorded of them."""
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")
        return evaluation_events(
            list(zip(asked.questions, rulings, strict=True)),
            at=at.replace("+00:00", "Z"),
            node="bench/decide-1",
            service=caller.service.uid,
            channel=caller.channel,
            request=asked.request,
            tokens=self._tokens,
            trace=asked.trace,
            names=self._names,
        )

    async def answer(self, asked: Asked, caller: Caller) -> Answered:
        """As a ``Node`` does."""
        now = time.time()
        rulings = self.decide(asked.questions, int(now * 1000))
        entries = self.events(asked, rulings, caller, now)
        index = 0
        if self._log is not None:
            index = await self._log.append(entries, durable=self._durable)
        return Answered(tuple(rulings), index, "bench.example/log", self.epoch)
