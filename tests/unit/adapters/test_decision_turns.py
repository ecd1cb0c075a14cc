"""Turns: equal shares, and of one share first come, first served; nobody is let in to wait too long."""

import asyncio
from dataclasses import replace
from time import perf_counter

import pytest

from chartgate.adapters.decision_limits import DEFAULT, Limits
from chartgate.adapters.decision_metrics import Metrics
from chartgate.adapters.decision_turns import Turns


class Ticket:
    def __init__(
        self, number: int, begun: list[int], *, weight: int = 500, share: str = "app"
    ) -> None:
        self.arrived = perf_counter()
        self.weight = weight
        self.share = share
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
    queue.begun(Ticket(-1, []))
    for number in range(50):
        queue.enter(Ticket(number, begun))
    assert begun == []
    for _ in range(50):
        await asyncio.sleep(0)
    assert begun == list(range(50))


async def test_a_turn_has_an_end_so_that_sockets_are_read_between():
    begun: list[int] = []
    queue = turns()
    queue.begun(Ticket(-1, []))
    for number in range(500):
        queue.enter(Ticket(number, begun))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(begun) < 500


async def test_nobody_is_let_in_who_would_wait_too_long():
    queue = turns()
    queue.begun(Ticket(-1, []))
    assert queue.admits(perf_counter(), "app")
    queue.enter(Ticket(1, [], weight=1 << 20))  # about a tenth of a second's work
    assert not queue.admits(perf_counter(), "app")


def under_way(queue: Turns, count: int, share: str, *, since: float = 0.0) -> list[Ticket]:
    tickets = [Ticket(number, [], share=share) for number in range(count)]
    for ticket in tickets:
        ticket.arrived -= since
        queue.begun(ticket)
    return tickets


async def test_nobody_is_let_in_while_the_log_is_behind_or_too_many_wait_for_it():
    queue = turns(replace(DEFAULT, in_flight=200))
    first = under_way(queue, 127, "app", since=1)
    assert queue.admits(perf_counter(), "app")  # a few may wait for a slow disk
    last = under_way(queue, 1, "app")
    assert not queue.admits(perf_counter(), "app")
    for ticket in first:
        queue.ended(ticket)
    assert queue.admits(perf_counter(), "app")
    under_way(queue, 199, "other")
    assert not queue.admits(perf_counter(), "app")
    queue.ended(last[0])
    queue.ended(last[0])  # a second time is nothing
    assert queue.admits(perf_counter(), "app")


async def test_one_service_leaves_room_for_others_where_they_wait_for_the_log():
    queue = turns(replace(DEFAULT, in_flight=400))
    under_way(queue, 300, "greedy", since=1)
    assert not queue.admits(perf_counter(), "greedy")
    assert queue.admits(perf_counter(), "polite")
    under_way(queue, 16, "polite")
    assert not queue.admits(perf_counter(), "polite")  # the log is behind for everybody


async def test_a_greedy_service_does_not_starve_a_polite_one():
    """Three times of what can be done beside a twentieth of it, by the clock of the machine."""
    cost, seconds = 0.0002, 0.4
    queue = turns()
    queue.begun(Ticket(-1, [], share="somebody"))  # nobody finds the queue at rest
    refused = {"greedy": 0, "polite": 0}
    waited: dict[str, list[float]] = {"greedy": [], "polite": []}

    class Work(Ticket):
        def begin(self) -> None:
            now = perf_counter()
            waited[self.share].append(now - self.arrived)
            while perf_counter() - now < cost:
                pass

        def give_up(self) -> None:
            refused[self.share] += 1

    def offer(share: str) -> None:
        if queue.admits(perf_counter(), share):
            queue.enter(Work(0, [], share=share))
        else:
            refused[share] += 1

    began, offered = perf_counter(), {"greedy": 0, "polite": 0}
    while (gone := perf_counter() - began) < seconds:
        for share, load in (("greedy", 3.0), ("polite", 0.05)):
            due = int(gone * load / cost)
            for _ in range(due - offered[share]):
                offer(share)
            offered[share] = due
        await asyncio.sleep(0)
    for _ in range(10_000):  # what is in, to its end
        await asyncio.sleep(0)
    assert offered["polite"] > 50
    assert refused["polite"] == 0
    assert len(waited["polite"]) == offered["polite"]
    assert max(waited["polite"]) < max(waited["greedy"])
    assert refused["greedy"] > offered["greedy"] / 3
    assert len(waited["greedy"]) > 2 * offered["polite"]  # and it has what is left


async def test_who_waited_all_too_long_is_told_so():
    queue = turns()
    queue.begun(Ticket(-1, []))
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
