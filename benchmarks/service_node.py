"""A node for the benchmark of the decision service: everything is real but where it comes from.

Policies, people and what is known of patients follow from ``policy_family`` instead of PostgreSQL; the
decision core, the events, the log and the doors are those of the product. Two questions of each:

- ``records``: a record's category, answered in levels, the patient named, as the product is meant to be
  asked; the care team comes from what the source says of the patient;
- ``plain``: the same policies over a kind of resource without levels, all attributes sent by the
  application: word for word what Cerbos is asked.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import policy_family as family

from chartgate.adapters.node_desk import AnswerDesk
from chartgate.adapters.node_rulings import make_ready
from chartgate.adapters.node_state import Turn
from chartgate.app.evaluation_events import CachedTokens
from chartgate.app.node_asked import Answered, Asked, Caller, Readiness, UnknownCaller
from chartgate.app.node_deciding import decide, entries
from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.rulings import Rulings
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


class _Facts:
    """What the source says of patients: all of it is known already."""

    def __init__(self, held: dict[str, PatientRecord]) -> None:
        self._held = held

    def knows(self, key: str, now: float | None = None) -> bool:
        return True

    def peek(self, key: str, now: float | None = None) -> PatientRecord | None:
        return self._held.get(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, PatientRecord | None]:
        return {key: self._held.get(key) for key in keys}

    def chunks(self, after: str = "", *, size: int = 256) -> Any:
        raise NotImplementedError


class NoLog:
    """Records nothing: to tell the parts apart."""

    async def append(self, entries: Sequence[bytes], *, durable: bool = True) -> int:
        return 0


class BenchNode:
    """Answers by the product's own desk."""

    def __init__(self, kind: str, count: int, log: Any, *, durable: bool = True) -> None:
        made = version(kind, count)
        people = {f"u{number}": person(number) for number in range(PEOPLE)}
        self.ready = make_ready(made, _MAP if kind == "records" else None, people)
        self.facts = {
            f"patient{number}": PatientRecord({"care_team": request.record.attrs["care_team"]}, ())
            for number, request in enumerate(requests())
        }
        self.tokens = CachedTokens(PatientTokens({datetime.now(UTC).year: bytes(32)}, "bench"))
        source = _Facts(self.facts) if kind == "records" else None
        self._desk = AnswerDesk(
            "bench/decide-1",
            "bench.example/log",
            log,
            self.tokens,
            Turn(),
            ready=lambda: self.ready,
            facts=lambda: source,
            epoch=lambda: 1,
            readiness=self.is_ready,
            is_durable=durable,
        )

    @property
    def rulings(self) -> Rulings:
        return self.ready.rulings

    @property
    def epoch(self) -> int:
        return 1

    def is_ready(self) -> Readiness:
        return _READY

    def measures(self) -> dict[str, float]:
        """There is no control plane whose age could be told."""
        return {}

    def service_of_token(self, token: str) -> Service:
        # as the control plane's services do
        if hashlib.sha256(token.encode()).digest() != _DIGEST:
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

    async def answer(self, asked: Asked, caller: Caller) -> Answered:
        return await self._desk.answer(asked, caller)

    def decide(self, asked: Asked, at_ms: int) -> list[Any]:
        """Rulings alone."""
        return list(decide(self.rulings, asked, EVERYTHING, self.facts, at_ms))

    def entries(self, asked: Asked, rulings: Sequence[Any], caller: Caller) -> Any:
        """What is recorded of them."""
        return entries(
            asked, rulings, caller, at="2026-11-22T00:00:00.000000Z", node="bench/decide-1",
            tokens=self.tokens, names=self.ready.names,
        )  # fmt: skip


_READY = Readiness()
_DIGEST = hashlib.sha256(TOKEN.encode()).digest()
