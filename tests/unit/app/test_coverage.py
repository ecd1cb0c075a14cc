"""Which policies decided something, over scenarios and over the log."""

from datetime import UTC, datetime

from chartgate.app.coverage import Recorded, clauses_of, over_log, over_scenarios
from chartgate.app.scenarios import Result, Scenario
from chartgate.cedar.ast import Policy, PolicySet
from chartgate.model.principal import Person

POLICIES = PolicySet(
    (
        Policy("a", "permit", annotations=(("clause", "164.1; 164.2"),)),
        Policy("b", "forbid", annotations=(("clause", "164.2"),)),
        Policy("c", "permit"),
    ),
    "now",
)
NOBODY = Person("u", "u", "u", active=True)


def result(title: str, *determining: str) -> Result:
    return Result(Scenario("f", title, NOBODY, "TREAT", "view", "full"), "full", determining)


def test_scenarios_count_for_the_policies_that_determined_them() -> None:
    found = over_scenarios([result("one", "a", "b"), result("two", "a"), result("three")], POLICIES)
    assert found.asked == 3
    assert [(p.id, p.count, p.titles) for p in found.policies] == [
        ("a", 2, ("one", "two")),
        ("b", 1, ("one",)),
        ("c", 0, ()),
    ]
    assert [p.id for p in found.unused] == ["c"]


def test_clauses_are_counted_over_the_policies_that_cite_them() -> None:
    found = over_scenarios([result("one", "b")], POLICIES)
    assert [(c.clause, c.policies, c.used, c.count) for c in found.clauses] == [
        ("164.1", 1, 0, 0),
        ("164.2", 2, 1, 1),
    ]
    assert clauses_of(POLICIES.policies[2]) == ()


def test_the_log_counts_this_policy_set_and_others_apart() -> None:
    def at(hour: int) -> datetime:
        return datetime(2026, 11, 22, hour, tzinfo=UTC)

    found = over_log(
        [
            Recorded(at(3), "now", ("a",)),
            Recorded(at(1), "now", ("a", "gone")),
            Recorded(at(2), "before", ("a", "b")),
        ],
        POLICIES,
    )
    assert found.asked == 3
    assert [(p.id, p.count, p.last, p.elsewhere) for p in found.policies] == [
        ("a", 2, at(3), 1),
        ("b", 0, None, 1),
        ("c", 0, None, 0),
    ]
    assert found.unknown == {"gone": 1}
