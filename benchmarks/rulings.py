"""How long a ruling takes, without transport and log: ``python benchmarks/rulings.py [--rounds N]``.

Two sets: the shipped policies, asked about a record by its labels (levels, reasons, obligations),
and the hospital family of ``policy_family`` at 43 policies, asked plainly with the record's
attributes as claims. Times are the best of several rounds, in microseconds, on one core; a busy
machine shows in the spread between best and median.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import policy_family as family

from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.engine import Engine
from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.rulings import Rulings
from chartgate.app.standing import PersonStandings
from chartgate.cedar.values import CedarSet
from chartgate.demo.people import EVERYBODY
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.model.service import EVERYTHING

ROOT = Path(__file__).resolve().parents[1]
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
NOW = 1_790_000_000_000
BATCH = 100


def family_version(count: int) -> PolicyVersion:
    """The family as a bundle: its roles and purposes are the book's."""
    purposes: dict[str, list[str]] = {}
    for name in family.WORKING:
        purposes[name] = sorted({*family.PURPOSES})
    roles = "\n".join(
        f"[roles.{name}]\nparents = {json.dumps(list(parents))}\n"
        f'default_purpose = "{family.SEEN[name][2] if name in family.SEEN else "TREAT"}"\n'
        f"purposes = {json.dumps(purposes.get(name, []))}"
        for name, parents in family.ROLES.items()
    )
    listed = "\n".join(f"{n} = {json.dumps(list(p))}" for n, p in family.PURPOSES.items())
    return open_bundle(
        Bundle(
            {
                "schema.cedarschema": family.SCHEMA,
                "roles.toml": roles,
                "purposes.toml": listed,
                "family.cedar": "\n".join(family.cedar(rule) for rule in family.rules(count)),
            }
        )
    )


def family_people(count: int) -> dict[str, Person]:
    """The family's people with one assignment for each role and department."""
    made = {}
    for number in range(count):
        roles, departments = family._person(number)  # noqa: SLF001 - two halves of one benchmark
        held = tuple(
            Assignment(role, departments[n % len(departments)], BEGIN, None)
            for n, role in enumerate(roles)
        )
        made[f"u{number}"] = Person(f"id{number}", f"u{number}", "", True, held)
    return made


def family_questions(count: int, people: int) -> list[Question]:
    """The family's requests, as an application asks them."""
    return [
        Question(
            Subject("User", request.person.id),
            Action(request.action.id),
            Resource("Record", "asked", request.attributes),
            {"purpose": request.purpose},
        )
        for request in family.requests(count, people, 3)
    ]


def demo() -> tuple[Rulings, PatientRecord]:
    """The shipped policies with the demo's people, and a patient of cardiology."""
    version = load_policy_version(ROOT / "policies")
    data_map = load_data_map(ROOT / "maps" / "hospital.toml", version.schema)
    people = {
        p.username: Person(
            f"id-{p.username}",
            p.username,
            p.full_name,
            True,
            (Assignment(p.role, p.department or None, BEGIN, None, p.reference, None),),
        )
        for p in EVERYBODY
    }

    def departments(*names: str) -> CedarSet:
        return CedarSet.of(EntityUid("Department", name) for name in names)

    facts = PatientRecord(
        {
            "patient": EntityUid("Patient", "7"),
            "care_team": CedarSet.of([EntityUid("User", "mwelby")]),
            "departments": departments("cardiology"),
            "queues": departments(),
            "age_bands": CedarSet.of([EntityUid("AgeBand", "adult")]),
        },
        (),
    )
    made = Rulings(version, PersonStandings(people, version.roles), data_map=data_map)
    return made, facts


def best(work: Callable[[], Any], each: int, rounds: int) -> tuple[float, float]:
    """Microseconds for one of ``each``: the best round and the median."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) / each * 1e6)
    return min(times), statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    gc.freeze()

    def told(name: str, work: Callable[[], Any], each: int) -> None:
        work()
        low, middle = best(work, each, rounds)
        print(f"{name:<58} {low:8.2f} {middle:8.2f}")

    print(f"{'microseconds for one ruling':<58} {'best':>8} {'median':>8}")
    rulings, facts = demo()
    for _ in rulings.warming():
        pass
    categories = ("labs", "notes", "medications", "imaging", "vitals_nursing")

    def asked(who: str, action: str, said: dict[str, Any], **context: Any) -> Question:
        return Question(
            Subject("User", who), Action(action), Resource("Record", "r", said), context
        )

    def one(question: Question, known: PatientRecord | None) -> Callable[[], None]:
        def work() -> None:
            for _ in range(BATCH):
                rulings.rule(question, EVERYTHING, known, NOW)

        return work

    count = len(rulings.version.policies.policies)
    of = f"shipped, {count} policies: "
    told(
        of + "view, allowed",
        one(asked("mwelby", "view", {"patient": "7", "category": "labs"}), facts),
        BATCH,
    )
    told(
        of + "view, nobody's patient",
        one(asked("oncdoc", "view", {"patient": "7", "category": "labs"}), facts),
        BATCH,
    )
    told(
        of + "view, unknown patient",
        one(asked("oncdoc", "view", {"patient": "8", "category": "labs"}), None),
        BATCH,
    )
    told(
        of + "view, masked at most",
        one(asked("mwelby", "view", {"patient": "7", "category": "gov_ids"}), facts),
        BATCH,
    )
    told(
        of + "update, allowed",
        one(asked("mwelby", "update", {"patient": "7", "category": "notes"}), facts),
        BATCH,
    )
    fields = [
        "patient.ssn",
        "patient.last_name",
        "patient.mrn",
        "patient.patient_id",
        "lab_result.value",
    ]
    told(
        of + "five columns",
        one(asked("mwelby", "view", {"patient": "7", "fields": fields}), facts),
        BATCH,
    )
    many = [
        asked("mwelby", "view", {"patient": str(n), "category": categories[n % 5]})
        for n in range(BATCH)
    ]
    known = {str(n): facts for n in range(BATCH)}
    told(of + "batch, 100 patients", lambda: rulings.rule_many(many, EVERYTHING, known, NOW), BATCH)
    same = [
        asked("mwelby", "view", {"patient": "7", "category": categories[n % 5]})
        for n in range(BATCH)
    ]
    told(of + "batch, one patient", lambda: rulings.rule_many(same, EVERYTHING, known, NOW), BATCH)

    version = family_version(43)
    plain = Rulings(version, PersonStandings(family_people(200), version.roles))
    for _ in plain.warming():
        pass
    questions = family_questions(2_000, 200)

    def each() -> None:
        for question in questions:
            plain.rule(question, EVERYTHING, None, NOW)

    told("family, 43 policies: plain, 2,000 different", each, len(questions))
    engine = Engine(version, family.world(200))
    requests = family.requests(2_000, 200, 3)

    def alone() -> None:
        for r in requests:
            engine.decide(r.person, r.action, r.record.uid, r.context, r.record)

    told("family, 43 policies: the engine alone, nothing to read", alone, len(requests))
    bare = [
        Question(q.subject, q.action, Resource("Record", "r", {}), q.context) for q in questions
    ]

    def without() -> None:
        for question in bare:
            plain.rule(question, EVERYTHING, None, NOW)

    told("family, 43 policies: plain, no properties", without, len(bare))
    mine = [
        Question(questions[0].subject, q.action, q.resource, questions[0].context)
        for q in questions[:BATCH]
    ]
    told(
        "family, 43 policies: batch, one person",
        lambda: plain.rule_many(mine, EVERYTHING, {}, NOW),
        BATCH,
    )


if __name__ == "__main__":
    main()
