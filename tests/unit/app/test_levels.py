"""The laws of disclosure levels, on policy sets made by hand and at random."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.app.levels import Asking, level_of, level_of_labels, may_change, may_read_log
from chartgate.cedar.ast import (
    FALSE,
    TRUE,
    Binary,
    Condition,
    GetAttr,
    Literal,
    Policy,
    PolicySet,
    Scope,
    Var,
)
from chartgate.cedar.entities import Entities
from chartgate.cedar.values import EMPTY
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import EntityUid

ACTIONS = {1: "view_masked", 2: "view_summary", 3: "view"}
ABSENT = GetAttr(Var("context"), "absent")
BODIES = {"holds": TRUE, "does not hold": FALSE, "fails": ABSENT}


@dataclass(frozen=True)
class Sketch:
    """A policy in three words."""

    effect: str
    rank: int
    outcome: str

    def policy(self, number: int, category: str | None = None) -> Policy:
        bodies = [BODIES[self.outcome]]
        if category is not None:
            mine = GetAttr(Var("resource"), "category")
            bodies.insert(0, Binary("==", mine, Literal(EntityUid("Category", category))))
        return Policy(
            f"p{number}",
            self.effect,
            action=Scope("==", (EntityUid("Action", ACTIONS[self.rank]),)),
            conditions=tuple(Condition("when", body) for body in bodies),
        )


SKETCHES = st.lists(
    st.builds(
        Sketch,
        st.sampled_from(["permit", "forbid"]),
        st.sampled_from([1, 2, 3]),
        st.sampled_from(list(BODIES)),
    ),
    max_size=6,
)


def asking(*policies: Policy) -> Asking:
    return Asking(PolicySet(tuple(policies), "hash"), Entities(), EntityUid("User", "u"), EMPTY)


def asking_sketches(sketches: list[Sketch]) -> Asking:
    return asking(*(sketch.policy(n) for n, sketch in enumerate(sketches)))


def level(sketches: list[Sketch]) -> Disclosure:
    return level_of(asking_sketches(sketches), EMPTY, "labs").level


def permit(rank: int, outcome: str = "holds") -> Sketch:
    return Sketch("permit", rank, outcome)


def forbid(rank: int, outcome: str = "holds") -> Sketch:
    return Sketch("forbid", rank, outcome)


@pytest.mark.parametrize(
    ("sketches", "expected"),
    [
        ([], Disclosure.WITHHELD),
        ([permit(1)], Disclosure.MASKED),
        ([permit(2)], Disclosure.SUMMARY),
        ([permit(3)], Disclosure.FULL),
        ([permit(1), permit(2)], Disclosure.SUMMARY),
        # a forbid removes its own level and those above it
        ([permit(3), forbid(3)], Disclosure.SUMMARY),
        ([permit(3), forbid(2)], Disclosure.MASKED),
        ([permit(3), forbid(1)], Disclosure.WITHHELD),
        ([permit(1), forbid(2)], Disclosure.MASKED),
        ([permit(1), permit(2), permit(3), forbid(1)], Disclosure.WITHHELD),
        # what cannot be evaluated
        ([permit(3, "fails")], Disclosure.WITHHELD),
        ([permit(3), forbid(2, "fails")], Disclosure.MASKED),
        ([permit(3), forbid(2, "does not hold")], Disclosure.FULL),
    ],
)
def test_the_level_is_the_highest_permitted_one_without_a_forbid_at_or_below_it(
    sketches: list[Sketch], expected: Disclosure
) -> None:
    assert level(sketches) == expected


@given(SKETCHES)
def test_a_level_is_at_least_l_exactly_when_permitted_from_above_and_not_forbidden_from_below(
    sketches: list[Sketch],
) -> None:
    reached = level(sketches)
    for rank in (1, 2, 3):
        permitted = any(
            s.effect == "permit" and s.rank >= rank and s.outcome == "holds" for s in sketches
        )
        forbidden = any(
            s.effect == "forbid" and s.rank <= rank and s.outcome != "does not hold"
            for s in sketches
        )
        assert (reached >= rank) == (permitted and not forbidden)


@given(SKETCHES, SKETCHES)
def test_more_permits_never_lower_and_more_forbids_never_raise_a_level(
    sketches: list[Sketch], more: list[Sketch]
) -> None:
    permits = [s for s in more if s.effect == "permit"]
    forbids = [s for s in more if s.effect == "forbid"]
    assert level(sketches + permits) >= level(sketches) >= level(sketches + forbids)


@given(SKETCHES, st.randoms(use_true_random=False))
def test_the_order_of_policies_does_not_matter(sketches: list[Sketch], random: object) -> None:
    shuffled = list(sketches)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert level(shuffled) == level(sketches)


@given(SKETCHES)
def test_only_determining_policies_matter(sketches: list[Sketch]) -> None:
    everything = asking_sketches(sketches)
    answer = level_of(everything, EMPTY, "labs")
    kept = [p for p in everything.policies.policies if p.id in answer.determining]
    assert level_of(asking(*kept), EMPTY, "labs").level is answer.level
    assert all(p.effect == "forbid" for p in kept) or answer.level > Disclosure.WITHHELD


@given(SKETCHES, SKETCHES)
def test_of_two_labels_the_lower_level_counts(one: list[Sketch], other: list[Sketch]) -> None:
    both = asking(
        *(s.policy(n, "labs") for n, s in enumerate(one)),
        *(s.policy(100 + n, "notes") for n, s in enumerate(other)),
    )
    answer = level_of_labels(both, EMPTY, ("labs", "notes"))
    assert answer.level == min(level(one), level(other))
    assert answer == level_of_labels(both, EMPTY, ("labs", "notes", "labs"))


def test_a_cell_without_a_label_is_withheld_and_a_record_without_one_unchangeable() -> None:
    everything = asking(Policy("all", "permit"))
    assert level_of_labels(everything, EMPTY, ()).level is Disclosure.WITHHELD
    assert not may_change(everything, "update", EMPTY, ()).allowed


def changing(*sketches: tuple[str, str, str]) -> Asking:
    return asking(
        *(
            Policy(
                f"{effect}_{category}",
                effect,
                action=Scope("==", (EntityUid("Action", "update"),)),
                conditions=(
                    Condition(
                        "when",
                        Binary(
                            "==",
                            GetAttr(Var("resource"), "category"),
                            Literal(EntityUid("Category", category)),
                        ),
                    ),
                    Condition("when", BODIES[outcome]),
                ),
            )
            for effect, category, outcome in sketches
        )
    )


@pytest.mark.parametrize(
    ("sketches", "allowed", "determining"),
    [
        ([], False, ()),
        ([("permit", "labs", "holds")], False, ()),
        (
            [("permit", "labs", "holds"), ("permit", "notes", "holds")],
            True,
            ("permit_labs", "permit_notes"),
        ),
        (
            [
                ("permit", "labs", "holds"),
                ("permit", "notes", "holds"),
                ("forbid", "notes", "fails"),
            ],
            False,
            ("forbid_notes",),
        ),
        ([("forbid", "labs", "holds")], False, ()),
    ],
)
def test_a_change_needs_the_permission_of_every_label(
    sketches: list[tuple[str, str, str]], allowed: bool, determining: tuple[str, ...]
) -> None:
    answer = may_change(changing(*sketches), "update", EMPTY, ("labs", "notes"))
    assert (answer.allowed, answer.determining) == (allowed, determining)


def test_reading_the_log_is_refused_by_default_and_by_a_forbid_that_fails() -> None:
    everyone = Policy("everyone", "permit")
    broken = Policy("broken", "forbid", conditions=(Condition("when", ABSENT),))
    assert not may_read_log(asking(), "read_audit").allowed
    assert may_read_log(asking(everyone), "read_audit").determining == ("everyone",)
    refused = may_read_log(asking(everyone, broken), "read_audit")
    assert (refused.allowed, refused.determining) == (False, ("broken",))


def test_a_template_that_is_not_linked_decides_nothing() -> None:
    from chartgate.cedar.ast import Slot

    template = Policy("t", "permit", principal=Scope("==", (Slot("?principal"),)))
    assert level_of(asking(template), EMPTY, "labs").level is Disclosure.WITHHELD
