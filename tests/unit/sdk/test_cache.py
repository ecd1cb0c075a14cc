"""Which answers may be used again, and for how long."""

from datetime import UTC, datetime, timedelta

import pytest

from chartgate.app.question import Question
from chartgate.model.disclosure import Disclosure
from chartgate.sdk import Record
from chartgate.sdk.cache import AnswerCache
from chartgate.sdk.decision import Decision, unavailable
from chartgate.sdk.errors import Misused
from chartgate.sdk.questions import question

AT = datetime(2026, 1, 1, tzinfo=UTC)
SCREEN = {"type": "Screen", "id": "scheduling"}
ASKED = question("nadams", "open", SCREEN)


def yes(**more: object) -> Decision:
    return Decision(allowed=True, policy_set="p", epoch=1, **more)  # type: ignore[arg-type]


def kept(decision: Decision, asked: Question = ASKED, *, after: float = 1.0) -> Decision | None:
    cache = AnswerCache(max_age=5)
    cache.answered(asked, decision, 100.0, AT)
    return cache.find(asked, 100.0 + after)


def test_a_plain_yes_is_used_again_until_it_is_too_old() -> None:
    assert kept(yes(), after=4.9) == yes()
    assert kept(yes(), after=5.0) is None


def test_an_answer_about_a_record_is_never_kept() -> None:
    for asked in (
        question("nadams", "view", Record(patient="17", category="labs")),
        question("nadams", "view", Record(category="technical")),
        question("nadams", "open", {"type": "Chart", "id": "1", "properties": {"patient": "17"}}),
    ):
        assert kept(yes(), asked) is None
    assert kept(yes(levels={"labs": Disclosure.FULL})) is None
    assert kept(yes(fields={"a": Disclosure.FULL})) is None


def test_a_no_is_not_kept() -> None:
    assert kept(Decision(allowed=False, policy_set="p", epoch=1)) is None
    assert kept(unavailable("no answer")) is None


def test_nothing_is_used_past_the_instant_that_changes_it() -> None:
    until = AT + timedelta(seconds=2)
    assert kept(yes(valid_until=until), after=1.9) is not None
    assert kept(yes(valid_until=until), after=2.0) is None
    assert kept(yes(valid_until=AT - timedelta(seconds=1)), after=0) is None


@pytest.mark.parametrize(
    "other",
    [
        Decision(allowed=False, policy_set="q", epoch=1),
        Decision(allowed=False, policy_set="p", epoch=2),
        Decision(allowed=True, policy_set="p", epoch=1, data_map="m"),
    ],
)
def test_another_policy_set_or_epoch_in_any_answer_drops_all(other: Decision) -> None:
    cache = AnswerCache(max_age=5)
    cache.answered(ASKED, yes(), 0.0, AT)
    cache.answered(question("oncdoc", "open", SCREEN), other, 1.0, AT)
    assert cache.find(ASKED, 1.0) is None


def test_an_answer_that_did_not_come_drops_nothing() -> None:
    cache = AnswerCache(max_age=5)
    cache.answered(ASKED, yes(), 0.0, AT)
    cache.answered(ASKED, unavailable("no answer"), 1.0, AT)
    assert cache.find(ASKED, 1.0) is not None


def test_it_is_bounded_in_entries_and_in_age() -> None:
    cache = AnswerCache(max_age=5, entries=3)
    asked = [question(f"n{i}", "open", SCREEN) for i in range(5)]
    for one in asked:
        cache.answered(one, yes(), 0.0, AT)
    assert [cache.find(one, 1.0) is not None for one in asked] == [False, False, True, True, True]
    for age in (0, 5.1, -1):
        with pytest.raises(Misused):
            AnswerCache(max_age=age)


def test_the_order_of_names_does_not_matter_but_every_value_does() -> None:
    cache = AnswerCache(max_age=5)
    cache.answered(question("a", "open", SCREEN, {"x": 1, "y": 2}), yes(), 0.0, AT)
    assert cache.find(question("a", "open", SCREEN, {"y": 2, "x": 1}), 1.0) is not None
    assert cache.find(question("a", "open", SCREEN, {"y": 2, "x": True}), 1.0) is None
