"""A decision that read the clock is kept no longer than its answer holds."""

import pytest

from chartgate.cedar.ast import Expr
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.values import DateTime, RecordValue
from chartgate.model.principal import EntityUid
from chartgate.targets.validity import OPAQUE, valid_until

NOON = 1_800_000_000_000
ME = EntityUid("User", "me")
ENV = Env(
    ME,
    EntityUid("Action", "view"),
    EntityUid("Record", "this row"),
    RecordValue({"now": DateTime(NOON), "limit": DateTime(NOON + 7)}),
    Entities((Entity(ME, RecordValue({"until": DateTime(NOON + 50)})),)),
)
LATER = 'datetime("2027-01-15T09:00:00Z")'
LATER_MS = 1_800_003_600_000


def bound(condition: str) -> int | None:
    text = f'@id("p") permit (principal, action, resource) when {{ {condition} }};'
    conditions: list[Expr] = [parse_policies({"p.cedar": text}).policies[0].condition()]
    return valid_until(conditions, ENV, now_ms=NOON)


@pytest.mark.parametrize("op", ["<", "<=", ">", ">="])
def test_a_comparison_with_a_later_instant_holds_until_then(op: str) -> None:
    assert bound(f"context.now {op} {LATER}") == LATER_MS
    assert bound(f"{LATER} {op} context.now") == LATER_MS


def test_the_first_of_several_instants_counts() -> None:
    assert bound(f"context.now < principal.until && context.now < {LATER}") == NOON + 50


def test_the_millisecond_after_an_instant_counts_too() -> None:
    condition = "context.now <= principal.until"
    text = f'@id("p") permit (principal, action, resource) when {{ {condition} }};'
    conditions = [parse_policies({"p.cedar": text}).policies[0].condition()]
    assert valid_until(conditions, ENV, now_ms=NOON + 50) == NOON + 51


@pytest.mark.parametrize(
    "condition",
    [
        "true",
        'context.now < datetime("2020-01-01")',
        "context has now",
        'context.limit > datetime("2020-01-01")',
        "context.now < principal.absent",
        "context.now < 3",
        "principal.until < principal.until",
    ],
)
def test_what_no_clock_can_turn_has_no_bound(condition: str) -> None:
    assert bound(condition) is None


@pytest.mark.parametrize(
    "condition",
    [
        f"context.now == {LATER}",
        f"context.now.toDate() < {LATER}",
        f"context.now < {LATER} || [context.now].contains({LATER})",
        "context == {limit: principal.until, now: principal.until}",
        "{a: context}.a.now < principal.until",
        f"context.now < (if context.now < {LATER} then {LATER} else principal.until)",
        f"context.now < (if resource.category == principal then {LATER} else principal.until)",
        f'context.now < (if action == Action::"view" then {LATER} else principal.until)',
    ],
)
def test_any_other_use_of_the_clock_is_never_kept(condition: str) -> None:
    assert bound(condition) == OPAQUE


FRESH = 'context.now.durationSince(context.signed_in) < duration("1h")'


@pytest.mark.parametrize(
    "condition",
    [
        f"context has signed_in && {FRESH}",
        f"context has signed_in && context.limit == context.limit && {FRESH}",
        f"principal.until == principal.until && context has signed_in && {FRESH}",
        f"(context has signed_in && true) && ({FRESH})",
    ],
)
def test_what_nobody_says_is_not_read(condition: str) -> None:
    assert bound(condition) is None


@pytest.mark.parametrize(
    "condition",
    [
        FRESH,
        f"context has limit && {FRESH}",
        f"context has signed_in || {FRESH}",
        f"!(context has signed_in) && {FRESH}",
        f"{FRESH} && context has signed_in",
    ],
)
def test_what_may_be_read_all_the_same_is_opaque(condition: str) -> None:
    assert bound(condition) == OPAQUE


def test_an_instant_that_was_said_holds_until_then() -> None:
    assert bound('context.now < context.limit.offset(duration("1s"))') == NOON + 1007
    assert bound("context.now < context.limit") == NOON + 7
    assert bound('context.now < context.now.offset(duration("1s"))') == OPAQUE
