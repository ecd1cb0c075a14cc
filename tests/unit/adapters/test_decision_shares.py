"""Shares of one queue: equal by weight, in order within a share, no rest saved up."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from chartgate.adapters.decision_shares import Shares


def taken(queue: Shares[str], count: int) -> list[str]:
    return [queue.take()[1] for _ in range(count)]


def test_shares_take_turns_whatever_each_has_brought():
    queue: Shares[str] = Shares()
    for _ in range(100):
        queue.put("greedy", 10, "greedy")
    for _ in range(3):
        queue.put("polite", 10, "polite")
    assert Counter(taken(queue, 6))["polite"] == 3
    assert taken(queue, 97) == ["greedy"] * 97


def test_shares_are_equal_in_weight_not_in_number():
    queue: Shares[str] = Shares()
    for _ in range(50):
        queue.put("large", 100, "large")
        queue.put("small", 10, "small")
    assert Counter(taken(queue, 44)) == {"large": 4, "small": 40}


def test_who_has_rested_begins_where_the_others_are():
    queue: Shares[str] = Shares()
    for _ in range(20):
        queue.put("always", 10, "always")
    taken(queue, 10)
    for _ in range(10):
        queue.put("rested", 10, "rested")
    assert Counter(taken(queue, 10)) == {"always": 5, "rested": 5}


def test_who_leaves_after_a_large_one_comes_back_behind_it():
    queue: Shares[str] = Shares()
    queue.put("large", 1_000, "large")
    for _ in range(50):
        queue.put("small", 10, "small")
    taken(queue, 2)
    queue.put("large", 1_000, "large")
    assert taken(queue, 40) == ["small"] * 40


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), max_size=60))
def test_everything_comes_out_once_and_in_order_of_its_share(
    brought: list[tuple[str, int]],
) -> None:
    queue: Shares[tuple[str, int]] = Shares()
    for number, (share, weight) in enumerate(brought):
        queue.put(share, weight, (share, number))
    assert (len(queue), queue.weight) == (len(brought), sum(weight for _, weight in brought))
    out = [queue.take()[1] for _ in brought]
    for share in "abc":
        assert [n for s, n in out if s == share] == [
            n for n, (s, _) in enumerate(brought) if s == share
        ]
    assert (len(queue), queue.weight, queue.sharing) == (0, 0, 0)
