"""Turns: first come, first served; nobody is let in who would wait too long."""

import asyncio
from dataclasses import replace
from time import perf_counter

import pytest

from chartgate.adapters.decision_limits import DEFAULT, Limits
from chartgate.adapters.decision_metrics import Metrics
from chartgate.adapters.decision_turns import Turns


class Ticket:
    def __init__(self, number: int, begun: list[int], *, weight: int = 500) -> None:
        self.arrived = perf_counter()
        self.weight = weight
        self.number = number
        self.begun = begun
        self.is_given_up = False

    def begin(self) -> None:
        self.begun.append(self.number)

    def give_up(self) -> None:
        self.is_given_up = True


def turns(limits: Limits = DEFAULT) -> Turns:
    return Turns(asyncio.get_running_loop(), limits, Metrics("test"))


async def test_whoever_comes_when_nothing_is_to_be_done_begins_at_once():
    begun: list[int] = []
    turns().enter(Ticket(1, begun))
    assert begun == [1]


async def test_the_others_wait_for_their_turn_in_order():
    begun: list[int] = []
    queue = turns()
    queue.under_way["somebody"] = perf_counter()
    for number in range(50):
        queue.enter(Ticket(number, begun))
    assert begun == []
    for _ in range(50):
        await asyncio.sleep(0)
    assert begun == list(range(50))


async def test_a_turn_has_an_end_so_that_sockets_are_read_between():
    begun: list[int] = []
    queue = turns()
    queue.under_way["somebody"] = perf_counter()
    for number in range(500):
        queue.enter(Ticket(number, begun))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(begun) < 500


async def test_nobody_is_let_in_who_would_wait_too_long():
    queue = turns()
    queue.under_way["somebody"] = perf_counter()
    assert queue.admits(perf_counter())
    queue.enter(Ticket(1, [], weight=1 << 20))  # about a tenth of a second's work
    assert not queue.admits(perf_counter())


async def test_nobody_is_let_in_while_the_log_is_behind_or_too_many_wait_for_it():
    queue = turns(replace(DEFAULT, in_flight=200))
    long_ago = perf_counter() - 1
    for number in range(127):
        queue.under_way[number] = long_ago
    assert queue.admits(perf_counter())  # a few may wait for a slow disk
    queue.under_way[127] = perf_counter()
    assert not queue.admits(perf_counter())
    for number in range(127):
        del queue.under_way[number]
    assert queue.admits(perf_counter())
    for number in range(200):
        queue.under_way[number] = perf_counter()
    assert not queue.admits(perf_counter())


async def test_who_waited_all_too_long_is_told_so():
    queue = turns()
    queue.under_way["somebody"] = perf_counter()
    late = Ticket(1, begun := [])
    late.arrived -= 1.0
    queue.enter(late)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert late.is_given_up
    assert begun == []


@pytest.mark.parametrize("status", [200, 503])
async def test_what_is_under_way_is_known_until_it_is_answered(status: int):
    queue, answered = turns(), []
    ticket = Ticket(1, [])

    async def answer() -> tuple[int, bytes]:
        await asyncio.sleep(0)
        return status, b""

    queue.carry_out(ticket, answer(), lambda task: answered.append(task.result()))
    assert list(queue.under_way) == [ticket]
    assert not queue.is_idle
    for _ in range(4):
        await asyncio.sleep(0)
    assert answered == [(status, b"")]
