"""Every state and step of a policy version, and who may take it."""

from itertools import product

import pytest

from chartgate.govern.policy_version import (
    IllegalStep,
    OwnDraft,
    Shelf,
    State,
    Step,
    Taken,
)

AUTHOR, SECOND, THIRD = "p_author", "p_second", "p_third"
A, B = "a" * 64, "b" * 64

# What may follow what, written down from the life cycle's description, not from the code.
POLICIES = """
nothing: pushed -> draft
draft: pushed -> draft, validated -> validated, shipped -> ready for approval,
       withdrawn -> withdrawn
validated: pushed -> draft, scenarios_passed -> scenarios passed, withdrawn -> withdrawn
scenarios passed: pushed -> draft, invariants_proved -> invariants proved, withdrawn -> withdrawn
invariants proved: pushed -> draft, compared -> ready for approval, withdrawn -> withdrawn
ready for approval: pushed -> draft, approved -> approved, refused -> refused,
       withdrawn -> withdrawn
approved: pushed -> draft, activated -> active, refused -> refused, withdrawn -> withdrawn
active:
superseded: pushed -> draft
withdrawn: pushed -> draft
refused: pushed -> draft
"""
MAPS = POLICIES.replace(
    "scenarios_passed -> scenarios passed", "compared -> ready for approval"
).replace("invariants_proved -> invariants proved, ", "")


def expected(text: str) -> dict[tuple[str, str], str]:
    table = {}
    for line in text.replace(",\n ", ", ").strip().splitlines():
        state, _, steps = line.partition(":")
        for step in filter(None, steps.split(",")):
            name, _, after = step.partition("->")
            table[state.strip(), name.strip()] = after.strip()
    return table


def taken(step: Step, content: str = A, person: str = AUTHOR, **given: object) -> Taken:
    return Taken(step, content, person, "2026-01-01T00:00:00Z", **given)  # type: ignore[arg-type]


def order(shelf: Shelf, content: str, step: Step = Step.ACTIVATED) -> Taken:
    return taken(step, content, SECOND, generation=shelf.generation + 1, previous=shelf.active)


CHECKS = (Step.PUSHED, Step.VALIDATED, Step.TESTED, Step.PROVED)


def compared(shelf: Shelf, content: str = A) -> Shelf:
    checked = shelf.after(taken(step, content) for step in CHECKS)
    return checked.on(taken(Step.COMPARED, content, detail={"against": shelf.active}))


def approved(shelf: Shelf, content: str = A) -> Shelf:
    return compared(shelf, content).on(taken(Step.APPROVED, content, SECOND))


def in_force(shelf: Shelf, content: str = A) -> Shelf:
    shelf = approved(shelf, content)
    return shelf.on(order(shelf, content))


START = Shelf("policies")


def at(state: State | None) -> Shelf:
    """A shelf whose version A is in that state, B never seen or in force after it."""
    draft = START.on(taken(Step.PUSHED))
    match state:
        case None:
            return START
        case State.DRAFT:
            return draft
        case State.VALIDATED | State.TESTED | State.PROVED:
            number = (State.VALIDATED, State.TESTED, State.PROVED).index(state)
            return START.after(taken(step) for step in CHECKS[: number + 2])
        case State.COMPARED:
            return compared(START)
        case State.APPROVED:
            return approved(START)
        case State.ACTIVE:
            return in_force(START)
        case State.SUPERSEDED:
            return in_force(in_force(START), B)
        case State.WITHDRAWN:
            return draft.on(taken(Step.WITHDRAWN))
        case State.REFUSED:
            return compared(START).on(taken(Step.REFUSED, person=SECOND))


@pytest.mark.parametrize(("state", "step"), tuple(product((None, *State), Step)))
def test_each_step_from_each_state_is_legal_or_refused_as_written_down(
    state: State | None, step: Step
) -> None:
    shelf = at(state)
    person = SECOND if step in {Step.APPROVED, Step.REFUSED} else AUTHOR
    is_order = step in {Step.ACTIVATED, Step.ROLLED_BACK}
    attempt = (
        order(shelf, A, step)
        if is_order
        else taken(step, person=person, detail={"against": shelf.active})
    )
    after = expected(POLICIES).get((state or "nothing", step))
    if step is Step.ROLLED_BACK and state is State.SUPERSEDED:
        after = "active"
    if after is None:
        with pytest.raises(IllegalStep):
            shelf.on(attempt)
    else:
        assert shelf.on(attempt).versions[A].state == after


def test_a_data_map_skips_what_only_policies_have() -> None:
    shelf = Shelf("map:hospital").after([taken(Step.PUSHED), taken(Step.VALIDATED)])
    with pytest.raises(IllegalStep):
        shelf.on(taken(Step.TESTED))
    ready = shelf.on(taken(Step.COMPARED, detail={"against": ""}))
    assert ready.state_of(A) == expected(MAPS)["validated", "compared"]


def test_no_stage_is_jumped() -> None:
    for missing in CHECKS:
        steps = [taken(step) for step in (*CHECKS, Step.COMPARED) if step is not missing]
        with pytest.raises(IllegalStep):
            START.after(steps)


def test_nobody_approves_or_refuses_her_own_draft() -> None:
    for step in (Step.APPROVED, Step.REFUSED):
        with pytest.raises(OwnDraft):
            compared(START).on(taken(step, person=AUTHOR))


def test_whoever_pushed_the_same_content_is_a_proposer_too() -> None:
    both = compared(START.on(taken(Step.PUSHED, person=SECOND)))
    for person in (AUTHOR, SECOND):
        with pytest.raises(OwnDraft):
            both.on(taken(Step.APPROVED, person=person))
    assert both.on(taken(Step.APPROVED, person=THIRD)).versions[A].approver == THIRD


@pytest.mark.parametrize(("over", "by"), [(Step.WITHDRAWN, AUTHOR), (Step.REFUSED, THIRD)])
def test_taken_back_and_pushed_by_a_colleague_it_is_still_hers(over: Step, by: str) -> None:
    again = compared(START).on(taken(over, person=by)).on(taken(Step.PUSHED, person=SECOND))
    again = again.after(taken(step) for step in CHECKS[1:])
    again = again.on(taken(Step.COMPARED, detail={"against": again.active}))
    for person in (AUTHOR, SECOND):
        with pytest.raises(OwnDraft):
            again.on(taken(Step.APPROVED, person=person))
    assert again.on(taken(Step.APPROVED, person=THIRD)).versions[A].proposer == AUTHOR


def test_only_a_proposer_withdraws() -> None:
    with pytest.raises(IllegalStep, match="only who proposed"):
        compared(START).on(taken(Step.WITHDRAWN, person=SECOND))


def test_pushed_again_it_needs_every_stage_and_another_approval() -> None:
    again = approved(START).on(taken(Step.PUSHED))
    assert again.state_of(A) is State.DRAFT
    assert again.versions[A].approver == ""


def test_what_is_in_force_is_the_last_activated_and_the_one_before_is_superseded() -> None:
    shelf = in_force(in_force(START), B)
    assert (shelf.active, shelf.before, shelf.generation) == (B, A, 2)
    assert shelf.state_of(A) is State.SUPERSEDED


def test_an_approval_over_another_comparison_does_not_put_in_force() -> None:
    """B was compared with nothing; meanwhile A came into force."""
    shelf = approved(START, B)
    shelf = in_force_beside(shelf)
    with pytest.raises(IllegalStep, match="push it again"):
        shelf.on(order(shelf, B))


def test_a_comparison_that_no_longer_stands_cannot_be_approved() -> None:
    shelf = in_force_beside(compared(START, B))
    with pytest.raises(IllegalStep, match="push it again"):
        shelf.on(taken(Step.APPROVED, B, SECOND))


def in_force_beside(shelf: Shelf) -> Shelf:
    return in_force(shelf, A)


def test_an_activation_is_the_next_generation_after_what_is_in_force() -> None:
    shelf = approved(in_force(START), B)
    for generation, previous in ((1, A), (3, A), (2, ""), (2, B)):
        with pytest.raises(IllegalStep):
            shelf.on(taken(Step.ACTIVATED, B, SECOND, generation=generation, previous=previous))


def test_a_rollback_goes_to_what_was_before_and_no_further_than_there_is() -> None:
    shelf = in_force(in_force(START), B)
    with pytest.raises(IllegalStep):
        shelf.on(order(shelf, "c" * 64, Step.ROLLED_BACK))
    back = shelf.on(order(shelf, A, Step.ROLLED_BACK))
    assert (back.active, back.before, back.generation) == (A, "", 3)
    assert back.state_of(B) is State.SUPERSEDED
    with pytest.raises(IllegalStep):
        back.on(order(back, B, Step.ROLLED_BACK))


@pytest.mark.parametrize("steps", [(Step.PUSHED,), (Step.PUSHED, Step.WITHDRAWN)])
def test_nobody_stands_in_the_way_of_a_rollback(steps: tuple[Step, ...]) -> None:
    shelf = in_force(in_force(START), B).after(taken(step, A) for step in steps)
    assert shelf.on(order(shelf, A, Step.ROLLED_BACK)).active == A


def test_what_ships_replaces_what_shipped_and_never_what_people_put_in_force() -> None:
    shipped = START.on(taken(Step.PUSHED)).on(taken(Step.SHIPPED, detail={"against": ""}))
    shipped = shipped.on(taken(Step.APPROVED, person=SECOND))
    shipped = shipped.on(order(shipped, A))
    newer = shipped.on(taken(Step.PUSHED, B)).on(taken(Step.SHIPPED, B, detail={"against": A}))
    assert newer.state_of(B) is State.COMPARED
    ours = in_force(START)
    with pytest.raises(IllegalStep, match="of your own"):
        ours.on(taken(Step.PUSHED, B)).on(taken(Step.SHIPPED, B, detail={"against": A}))


@pytest.mark.parametrize(
    ("state", "step", "words"),
    [
        (State.COMPARED, Step.ACTIVATED, "ready for approval: somebody other than who proposed it"),
        (State.ACTIVE, Step.ACTIVATED, "active: nothing is left to do"),
        (State.APPROVED, Step.APPROVED, "approved: it can be activated"),
        (State.REFUSED, Step.ACTIVATED, "refused: push it again first"),
        (State.DRAFT, Step.APPROVED, "draft: not every check was passed"),
        (None, Step.VALIDATED, "not in the store: it cannot be validated"),
    ],
)
def test_a_step_that_is_not_legal_is_refused_with_what_to_do_instead(
    state: State | None, step: Step, words: str
) -> None:
    shelf = at(state)
    attempt = order(shelf, A, step) if step is Step.ACTIVATED else taken(step, person=SECOND)
    with pytest.raises(IllegalStep, match=words):
        shelf.on(attempt)
