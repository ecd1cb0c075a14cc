"""What is left of the policies for one person: it says what all of them say, or nothing at all."""

from typing import Any

import pytest

from chartgate.cedar.entities import Entity
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.values import CedarSet, RecordValue, Value
from chartgate.model.principal import EntityUid
from chartgate.targets import compiled_special
from chartgate.targets.compiled import CompiledPolicies, compile_policies
from chartgate.targets.compiled_special import Fixed, Slot, Special, Specialiser
from chartgate.targets.entity_store import EntityStore

ANN, BOB = EntityUid("User", "ann"), EntityUid("User", "bob")
VIEW = EntityUid("Action", "view")
CHART = EntityUid("Chart", "7")
NURSE = EntityUid("Role", "nurse")
EAST = EntityUid("Department", "east")
TREAT = EntityUid("Purpose", "TREAT")
BOTH = frozenset({"permit", "forbid"})

STORE = EntityStore(
    [
        Entity(
            ANN,
            {"departments": CedarSet.of([EAST]), "rank": 2, "held": RecordValue((("a", 1),))},
            frozenset({NURSE}),
            {"t": "x"},
        ),
        Entity(BOB, {"departments": CedarSet.of(())}, frozenset({ANN})),
        Entity(CHART, {"department": EAST}, frozenset()),
    ]
)
RECORDS: list[dict[str, Value]] = [
    {},
    {"department": EAST, "note": "a*b", "rank": 1, "author": ANN},
    {
        "department": EntityUid("Department", "west"),
        "note": "xyz",
        "rank": 2**63 - 1,
        "author": BOB,
    },
    {"department": "east", "note": 7, "rank": True, "author": CHART},
]
CONDITIONS = [
    "true",
    'principal in Role::"nurse" && resource.department == Department::"east"',
    "principal.departments.contains(resource.department)",
    '!(resource.note like "a*") || resource.rank > principal.rank',
    "-resource.rank < 0",
    "resource.rank + principal.rank > 1",
    "resource.author is User",
    "resource.author is User in principal",
    "resource.author has departments && resource.author.departments.isEmpty()",
    'resource.author.hasTag("t") && resource.author.getTag("t") == "x"',
    "[principal, resource.author].contains(resource.author)",
    "{who: resource.author, rank: principal.rank}.who == principal",
    'if principal in Role::"nurse" then resource has note else resource.note == "xyz"',
    "resource == action",
    'ip("10.0.0.1").isInRange(ip("10.0.0.0/8")) && resource has rank',
    'decimal("1.0").lessThan(decimal("2.0")) && resource has note',
    "resource.rank.toDays() > 1 || resource has note",
    'context.purpose == Purpose::"TREAT" && resource.rank > 0',
    'resource.rank > 0 && principal in Role::"clerk"',
    'resource.rank > 0 && context.purpose in Purpose::"PAY"',
    "context has other && resource has rank",
    'User::"ann" in Role::"nurse" && resource has rank',
]


def compiled(*conditions: str) -> CompiledPolicies:
    texts = [
        f"{('permit', 'forbid')[n % 2]} (principal, action, resource) when {{ {text} }};"
        for n, text in enumerate(conditions)
    ]
    return compile_policies(parse_policies({"p": "\n".join(texts)}, ids="order"), actions={})


def fixed(who: EntityUid = ANN, context: dict[str, Value] | None = None, **label: Value) -> Fixed:
    [(name, value)] = label.items() or [("", CHART)]
    own: Any = Entity(CHART, {name: value}) if name else None
    said: dict[str, Value] = {"purpose": TREAT} if context is None else context
    return Fixed(who, "Chart", CHART, said, STORE.view, (STORE.view,), own, name)


def special(policies: CompiledPolicies, given: Fixed) -> Special | None:
    return Specialiser(policies).special(given, [Slot(VIEW, 0, BOTH)])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_what_is_left_of_a_condition_says_what_the_condition_says(condition: str) -> None:
    policies = compiled(condition, condition, "principal == resource", "resource has note")
    given = fixed()
    left = special(policies, given)
    assert left is not None
    for attributes in RECORDS:
        own: Any = Entity(CHART, dict(attributes))
        found = left.found(CHART, given.context, own)
        assert found is not None
        expected = policies.weigh(ANN, VIEW, CHART, given.context, STORE.view, own)
        [weighed] = left.rest.weighed(found)
        assert weighed is expected or weighed == expected or _same(weighed, expected)
    stored = left.found(CHART, given.context, None)
    assert stored is not None
    assert _same(
        left.rest.weighed(stored)[0],
        policies.weigh(ANN, VIEW, CHART, given.context, STORE.view, None),
    )
    nobody = left.found(EntityUid("Chart", "none"), given.context, None)
    assert nobody is not None


def _same(one: Any, other: Any) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in one.__slots__)


def test_a_condition_that_fails_in_advance_is_asked_the_general_way() -> None:
    assert special(compiled("principal.nothing"), fixed()) is None
    assert special(compiled("context.absent == 1"), fixed()) is None
    assert special(compiled("resource has note && principal.rank"), fixed()) is None


def test_who_is_asked_about_herself_or_what_she_is_in_is_asked_the_general_way() -> None:
    left = special(compiled("resource has note"), fixed())
    assert left is not None
    assert left.found(ANN, {}, None) is None
    assert left.found(NURSE, {}, None) is None


def test_a_context_that_leads_to_the_person_settles_nothing() -> None:
    policies = compiled("context.purpose == resource.author")
    assert special(policies, fixed(context={"purpose": BOB})) is None
    assert special(policies, fixed(context={"purpose": TREAT})) is not None


def test_a_label_that_is_known_settles_what_asks_for_it() -> None:
    policies = compiled(
        "true", "resource.category == 3 && resource has note", "resource has category"
    )
    left = special(policies, fixed(category=3))
    other = special(policies, fixed(category=4))
    assert left is not None
    assert other is not None
    own: Any = Entity(CHART, {"category": 3, "note": "x"})
    found = left.found(CHART, {"purpose": TREAT}, own)
    assert found is not None
    assert left.rest.weighed(found)[0].forbids == ("policy1",)
    assert len(other.rest.nodes) == 1


def test_colleagues_share_what_is_left_and_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Specialiser(compiled("resource has note", "resource.author == principal"))
    slots = [Slot(VIEW, 0, BOTH)]
    one, other = made.special(fixed(ANN), slots), made.special(fixed(BOB), slots)
    assert one is not None
    assert other is not None
    assert one.rest is other.rest
    monkeypatch.setattr(compiled_special, "_MOST_KEPT", 1)
    monkeypatch.setattr(compiled_special, "_MOST_FOUND", 1)
    again = made.special(fixed(ANN, {"purpose": NURSE}), slots)
    assert again is not None
    assert made.special(fixed(ANN), [*slots, *slots]) is not None
    again.rest.keep((0,), "first")
    again.rest.keep((1,), "second")
    assert again.rest.answers == {(1,): "second"}


def test_a_record_is_no_constant() -> None:
    assert special(compiled("resource.author == principal.held"), fixed()) is None


def test_what_python_takes_for_equal_is_told_apart() -> None:
    made = Specialiser(compiled("resource.rank == context.rank"))
    slots = [Slot(VIEW, 0, BOTH)]
    own: Any = Entity(CHART, {"rank": 1})
    for rank, expected in ((True, ()), (1, ("policy0",))):
        left = made.special(fixed(context={"rank": rank}), slots)
        assert left is not None
        found = left.found(CHART, {"rank": rank}, own)
        assert found is not None
        assert left.rest.weighed(found)[0].permits == expected
