"""What a decision costs from the bytes of a request's body to those of its answer, stage by stage.

    python benchmarks/decision_path.py [--rounds N] [--json] [--profile CASE]

No socket, no loop and no disk: the log is a list, and ``rest`` is what is left of the whole once its
stages are taken off. Times are processor time of this thread in microseconds for one item, of each
request the best of several rounds: other work on the machine shows as little as it can. Three sets:

- ``records``: 43 policies of ``policy_family``, a record's category asked in levels, patient named;
- ``plain``: the same policies, a resource with all of its attributes sent along;
- ``shipped``: the shipped policies with the demo's people, a record's category in levels.

Three shapes: ``single``; ``batch``, a hundred questions of as many people; ``list``, a hundred records
that one person has before her, who, what and what for said once.
"""

import argparse
import cProfile
import gc
import json
import pstats
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import service_node as bench
from rulings import demo

from chartgate.adapters.decision_desk import EVALUATION, EVALUATIONS, Desk
from chartgate.adapters.decision_metrics import Metrics
from chartgate.adapters.node_desk import AnswerDesk
from chartgate.adapters.node_rulings import make_ready
from chartgate.adapters.node_state import Turn
from chartgate.app.authzen import answer, answers, parse_evaluation
from chartgate.app.authzen_batch import Batch, parse_evaluations
from chartgate.app.authzen_errors import RecordedAt
from chartgate.app.authzen_paging import Pager
from chartgate.app.evaluation_events import CachedTokens
from chartgate.app.node_asked import Asked, Caller
from chartgate.app.node_deciding import decide, entries, patients_of, releases
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.tokens import PatientTokens

BATCH = 100
WARM = 120
POLICIES = 43
CALLER = Caller(bench.SERVICE, "https")
SHAPES = ("single", "batch", "list")
STAGES = ("parse", "decide", "entry", "encode", "rest", "whole")
ORIGIN = "bench.example/log"
AT = "2026-11-22T00:00:00.000000Z"
AT_MS = 1_790_000_000_000


class ListLog:
    """The log as a list that is emptied now and then."""

    def __init__(self) -> None:
        self.size = 0
        self._held: list[bytes] = []

    async def append(self, listed: Sequence[bytes], *, durable: bool = True) -> int:
        index = self.size
        self.size += len(listed)
        self._held = [*listed]
        return index


class Case:
    """One set of policies with its questions, and the desk that answers them."""

    def __init__(self, kind: str) -> None:
        self.tokens = CachedTokens(PatientTokens({2026: bytes(32)}, "bench"))
        log = ListLog()
        if kind == "shipped":
            self.questions, self.ready, source = shipped()
            desk = AnswerDesk(
                "bench/decide-1", ORIGIN, log, self.tokens, Turn(),  # type: ignore[arg-type]
                ready=lambda: self.ready, facts=lambda: source, epoch=lambda: 1,
                readiness=lambda: bench._READY, is_durable=True,  # noqa: SLF001
            )  # fmt: skip
            node: Any = bench.BenchNode("plain", 1, log)
            node._desk, self.facts = desk, source._held  # noqa: SLF001
        else:
            node = bench.BenchNode(kind, POLICIES, log)
            self.ready, self.facts = node.ready, node.facts
            asked = enumerate(bench.requests())
            self.questions = [bench.question(kind, n, request) for n, request in asked]
            node.tokens = self.tokens
        self.desk = Desk(node, Metrics("bench"), Pager(bytes(32)))

    def bodies(self, shape: str) -> list[bytes]:
        """What is sent."""
        asked = self.questions
        if shape == "single":
            return [msgspec.json.encode(question) for question in asked]
        starts = range(0, len(asked), BATCH)
        if shape == "batch":
            return [msgspec.json.encode({"evaluations": asked[at : at + BATCH]}) for at in starts]
        return [
            msgspec.json.encode(
                {
                    "subject": one.subject,
                    "action": one.action,
                    "context": one.context,
                    "evaluations": [
                        {"resource": other.resource} for other in (asked * 2)[at : at + BATCH]
                    ],
                }
            )
            for at, one in enumerate(asked[:20])
        ]


def shipped() -> tuple[list[Question], Any, Any]:
    """The shipped policies, about patients of cardiology and categories that are often asked."""
    rulings, facts = demo()
    people = dict(rulings.people._persons)  # type: ignore[attr-defined] # noqa: SLF001
    ready = make_ready(rulings.version, None, people)
    categories = ("labs", "notes", "medications", "imaging", "vitals_nursing")
    who = ("mwelby", "oncdoc")
    object.__setattr__(ready, "rulings", rulings)
    for _ in rulings.warming():
        pass
    questions = [
        Question(
            Subject("User", who[n % 8 == 7]),
            Action("view" if n % 4 else "view_summary"),
            Resource("Record", f"r{n}", {"patient": str(n), "category": categories[n % 5]}),
        )
        for n in range(400)
    ]
    return questions, ready, bench._Facts({str(n): facts for n in range(400)})  # noqa: SLF001


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """What never waits needs no loop."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


def measured(case: Case, shape: str, rounds: int) -> dict[str, float]:
    """Microseconds an item of each stage."""
    bodies, rulings = case.bodies(shape), case.ready.rulings
    single = shape == "single"
    operation = EVALUATION if single else EVALUATIONS
    parse: Callable[[bytes], Any] = parse_evaluation if single else parse_evaluations
    parsed = [parse(body) for body in bodies]
    asked = [
        Asked(one.questions if isinstance(one, Batch) else (one,), "00000000000000000001")
        for one in parsed
    ]
    items = sum(len(one.questions) for one in asked)

    def deciding(at: int) -> Sequence[Any]:
        patients_of(rulings, asked[at].questions)
        return decide(rulings, asked[at], bench.SERVICE.scope, case.facts, AT_MS)

    ruled = [deciding(at) for at in range(len(asked))]

    def recording(at: int) -> None:
        releases(ruled[at])
        entries(
            asked[at], ruled[at], CALLER, at=AT, node="bench/decide-1", tokens=case.tokens,
            names=case.ready.names,
        )  # fmt: skip

    where = RecordedAt(ORIGIN, 123_456)

    def encoding(at: int) -> None:
        one = parsed[at]
        if isinstance(one, Batch):
            answers(one.placed(ruled[at]), where, 1)
        else:
            answer(ruled[at][0], where, 1)

    def whole(at: int) -> None:
        status, _ = run(case.desk.ask(operation, bodies[at], CALLER))
        assert status == 200

    works: dict[str, Callable[[int], object]] = {
        "parse": lambda at: parse(bodies[at]),
        "decide": deciding, "entry": recording, "encode": encoding, "whole": whole,
    }  # fmt: skip
    # What is asked often is answered on a shorter way, once that is made: not in the times.
    for _ in range(WARM):
        for at in range(len(asked)):
            deciding(at)
    times: dict[str, float] = {}
    for name, work in works.items():
        least = [1e9] * len(asked)
        for _ in range(rounds):
            for at in range(len(asked)):
                began = time.thread_time_ns()
                work(at)
                least[at] = min(least[at], time.thread_time_ns() - began)
        times[name] = sum(least) / items / 1e3
    times["rest"] = times["whole"] - sum(times[n] for n in ("parse", "decide", "entry", "encode"))
    return times


def profiled(case: Case, shape: str) -> None:
    """Where the calls go; the times are distorted."""
    bodies = case.bodies(shape)
    operation = EVALUATION if shape == "single" else EVALUATIONS

    def work() -> None:
        for body in bodies:
            run(case.desk.ask(operation, body, CALLER))

    work()
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(20):
        work()
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", metavar="KIND-SHAPE", help="such as records-batch")
    chosen = parser.parse_args()
    if chosen.profile:
        kind, _, shape = chosen.profile.partition("-")
        profiled(Case(kind), shape)
        return
    found: dict[str, dict[str, float]] = {}
    for kind in ("records", "plain", "shipped"):
        case = Case(kind)
        gc.collect()
        gc.freeze()
        for shape in SHAPES:
            found[f"{kind} {shape}"] = measured(case, shape, chosen.rounds)
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{'µs an item':18}" + "".join(f"{stage:>9}" for stage in STAGES) + f"{'a second':>12}")
    for name, times in found.items():
        row = "".join(f"{times[stage]:>9.2f}" for stage in STAGES)
        print(f"{name:18}{row}{1e6 / times['whole']:>12,.0f}")


if __name__ == "__main__":
    main()
