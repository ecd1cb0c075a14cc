"""How long "who can" and "what can" take: 10,000 people, 1,000 policies, nobody left out.

    python benchmarks/explain.py [--people 10000] [--policies 1000]

The policies are the hospital of policy_family.py; the people hold one to three assignments there,
some of which end. The first run of each question counts: nothing is kept from one to the next.
"""

import argparse
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import policy_family as family

from chartgate.app.explain import explain
from chartgate.app.explain_change import suggestions
from chartgate.app.explain_question import Question, decide, judging
from chartgate.app.policy_bundle import Bundle, PolicyVersion
from chartgate.app.rolebook import Role, RoleBook
from chartgate.app.what_can import what_can
from chartgate.app.who_can import Holder, who_can
from chartgate.cedar.parse import parse_policies, parse_schema
from chartgate.cedar.validate import validate
from chartgate.cedar.values import CedarSet, RecordValue
from chartgate.model.principal import Assignment, EntityUid, Person

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
# The family's own schema, with what a demo person has besides and closed categories.
SCHEMA = (
    family.SCHEMA.replace(
        "entity Category;", f"entity Category enum [{', '.join(map(repr, family.CATEGORIES))}];"
    )
    .replace("'", '"')
    .replace(
        "{ departments: Set<Department> }",
        "{ departments: Set<Department>, references: Set<String>, patients: Set<Patient> }",
    )
    .replace("entity Department;", "entity Department; entity Patient;")
    .replace("{ purpose: Purpose }", "{ purpose: Purpose, now: datetime, source: String }")
)


def version_of(count: int) -> PolicyVersion:
    """So many policies, strictly validated."""
    made = family.rules(count)
    policies = parse_policies({"family.cedar": "\n".join(map(family.cedar, made))})
    schema = parse_schema(SCHEMA, "family.cedarschema")
    validate(policies, schema)
    roles = RoleBook(
        {
            name: Role(
                name, name, parents, "", (family.SEEN[name][2],) if name in family.SEEN else ()
            )
            for name, parents in family.ROLES.items()
        },
        family.PURPOSES,
    )
    return PolicyVersion(Bundle({}), policies, schema, roles)


def people_of(count: int, departments: int) -> list[Person]:
    """So many people; a third of the assignments end within the year."""
    chance = random.Random(11)
    made = []
    for number in range(count):
        held = tuple(
            Assignment(
                chance.choice(family.WORKING),
                f"d{chance.randrange(departments)}",
                NOW - timedelta(days=chance.randrange(900)),
                NOW + timedelta(hours=chance.randrange(9000)) if chance.random() < 0.33 else None,
                f"T-{number}" if chance.random() < 0.5 else None,
            )
            for _ in range(chance.choice((1, 1, 1, 2, 3)))
        )
        made.append(Person(f"p{number}", f"u{number}", f"Person {number}", True, held))
    return made


def timed(what: str, run: Callable[[], object]) -> object:
    began, busy = time.perf_counter(), time.process_time()
    result = run()
    took, busy = time.perf_counter() - began, time.process_time() - busy
    size = f"{len(result):>7,}" if isinstance(result, tuple) else f"{'':>7}"
    print(f"{what:66}{size}{took * 1000:>10,.0f} ms{busy * 1000:>10,.0f} ms CPU")
    return result


def agree(
    version: PolicyVersion,
    crowd: list[Person],
    found: tuple[Holder, ...],
    question: Question,
    known: dict[str, object],
) -> None:
    """A sample, one by one, by the reference meaning."""
    ranks = {h.person.name: h for h in found}
    record = RecordValue({k: v for k, v in known.items() if v is not None})  # type: ignore[misc]
    for person in random.Random(3).sample(crowd, 40):
        for purpose in family.PURPOSES:
            asked = Question(question.action, question.labels, purpose, NOW, record)
            rank = decide(judging(version, person, asked), version.policies).rank
            held = ranks.get(person.name)
            got = (
                max((h.rank for h in held.holdings if purpose in h.purposes), default=0)
                if held
                else 0
            )
            assert got == rank, (person, purpose, got, rank)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--policies", type=int, default=1_000)
    given = parser.parse_args()
    version = version_of(given.policies)
    departments = max(1, (given.policies - 13) // 10)
    crowd = people_of(given.people, departments)
    known = {
        "department": EntityUid("Department", "d7"),
        "restricted": False,
        "care_team": CedarSet.of(EntityUid("User", f"u{n}") for n in range(0, 50, 5)),
        "author": EntityUid("User", "u5"),
    }
    print(f"{len(crowd):,} people, {len(version.policies):,} policies, {departments} departments")
    part = {"restricted": False, "author": None, "care_team": known["care_team"]}
    few = crowd[:20]

    def ask(people: list[Person], question: Question, record: dict[str, object]) -> object:
        return who_can(version, people, question, record)  # type: ignore[arg-type]

    for labels in (("labs",), ("notes",), ("demographics", "notes")):
        question = Question("view", labels, "", NOW)
        told = f"who-can view {'+'.join(labels)}"
        found = timed(told, partial(ask, crowd, question, known))
        agree(version, crowd, found, question, known)
    someone = max(crowd, key=lambda p: len(p.assignments))
    timed("what-can, a person of three assignments", lambda: what_can(version, someone, at=NOW))
    question = Question("view", ("labs",), "HOPERAT", NOW, RecordValue(known))
    explained = timed("explain, a denial", lambda: explain(version, someone, question))
    timed("the smallest changes that would allow", lambda: suggestions(version, explained))
    question = Question("view", ("labs",), "", NOW)
    timed(
        "who-can view labs, 20 people, the department left open", partial(ask, few, question, part)
    )


if __name__ == "__main__":
    main()
