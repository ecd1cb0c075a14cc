"""Policy decisions: Chartgate beside cedarpy, regorus, pycasbin and Cerbos, in one run.

    python benchmarks/policy.py [--quick] [--sizes 43,1000] [--json] [--cerbos PATH]

The hospital of ``policy_family.py`` at four sizes, the same rules and the same requests for every
engine. Answers are compared before anything is timed: a difference ends the run. Chartgate answers
with full reasons, the record's own attributes laid over the entity store in each call. The slower an
engine, the fewer requests it is given.

The engines take turns, round by round, each with two passes over its requests: the first finds the
caches as another engine left them. Each request counts with its best pass, for every engine alike, so
that what another process did to the machine stays out; median and 99th percentile are over the
requests. Python's collector does not run between passes: it would walk through the memory of the
whole process. What a decision takes that finds no cache filled is measured by itself (``cold``): 64
MB are read before each pass. ``--json`` also has median and percentile over every call as it was.
"""

import argparse
import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import policy_engines as engines
import policy_family as family
from policy_engines import Call
from policy_family import Request, Rule

from chartgate.adapters.engine_warmup import EngineLoader
from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.engine import Engine, validated
from chartgate.cedar.ast import Policy
from chartgate.cedar.entities import Entity
from chartgate.cedar.parse import parse_policies, parse_schema, policy_set, validate
from chartgate.cedar.values import CedarSet, DateTime
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled import CompiledPolicies, compile_policies
from chartgate.targets.entity_store import EntityStore, EntityView

SIZES = (43, 1_000, 3_300, 10_000)
PEOPLE = 1_000
ASKED = [(EntityUid("Action", name), "User", "Record") for name in family.ACTIONS]
# What a schema says of the actions: none is in a group.
GROUPS = {action: frozenset({action}) for action, _, _ in ASKED}
# (engine, number of rules) -> requests a round; what is not listed is not run.
COMPARED = {
    "cedarpy": {43: 300, 1_000: 60, 3_300: 24, 10_000: 8},
    "regorus": {43: 300, 1_000: 30, 3_300: 10},
    "pycasbin": {43: 12, 1_000: 1},
    "cerbos": {43: 100, 1_000: 40},
}
PASSES = 2
# Twice the third-level cache of a usual server.
OTHER_WORK = bytearray(64 << 20)
Figures = dict[str, Any]


def percentile(taken: list[float], share: float) -> float:
    ordered = sorted(taken)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@contextmanager
def no_collection() -> Iterator[None]:
    """Without Python's cycle collector, which would be timed with whoever it interrupts."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Timed:
    """The microseconds of each request, in every round."""

    def __init__(self) -> None:
        self._rounds: list[list[float]] = []

    def add(self, calls: list[Callable[[], Any]]) -> None:
        clock = time.perf_counter_ns
        for _ in range(PASSES):
            taken = []
            with no_collection():
                for call in calls:
                    before = clock()
                    call()
                    taken.append((clock() - before) / 1e3)
            self._rounds.append(taken)

    def add_ours(self, compiled: CompiledPolicies, asked: list[Any], *, cold: bool = False) -> None:
        """The same without a function around each call, which would take a tenth of the time."""
        clock, decide = time.perf_counter_ns, compiled.decide
        for _ in range(PASSES):
            taken = []
            if cold:
                bytes(OTHER_WORK)
            with no_collection():
                for one in asked:
                    before = clock()
                    decide(*one, forbid_error_denies=True)
                    taken.append((clock() - before) / 1e3)
            self._rounds.append(taken)

    def figures(self) -> Figures:
        best = [min(request) for request in zip(*self._rounds, strict=True)]
        every = [one for taken in self._rounds for one in taken]
        return {
            "p50": statistics.median(best), "p99": percentile(best, 0.99), "requests": len(best),
            "every_p50": statistics.median(every), "every_p99": percentile(every, 0.99),
        }  # fmt: skip


def asked_of(view: EntityView, requests: list[Request]) -> list[Any]:
    return [(r.person, r.action, r.record.uid, r.context, view, r.record) for r in requests]


def best_ours(
    compiled: CompiledPolicies, view: EntityView, requests: list[Request], rounds: int
) -> Figures:
    timed, asked = Timed(), asked_of(view, requests)
    gc.collect()
    for _ in range(rounds):
        timed.add_ours(compiled, asked)
    return timed.figures()


def answers(
    compiled: CompiledPolicies, view: EntityView, requests: list[Request]
) -> list[tuple[bool, frozenset[str]]]:
    found = []
    for r in requests:
        a = compiled.decide(
            r.person, r.action, r.record.uid, r.context, view, r.record, forbid_error_denies=True
        )
        assert not a.errors
        found.append((a.allowed, frozenset(a.determining)))
    return found


def check(name: str, calls: list[Call], expected: list[Any]) -> None:
    """An engine is timed only if its answers are ours."""
    for number, call in enumerate(calls):
        allowed, reasons = call()
        if allowed != expected[number][0] or reasons not in (None, expected[number][1]):
            raise SystemExit(f"{name} answers request {number} otherwise: {allowed} {reasons}")


def side_by_side(
    rules: list[Rule], policies: tuple[Policy, ...], rounds: int, cerbos: str | None
) -> Figures:
    """Every engine at one size."""
    size = len(rules)
    requests = family.requests(400, PEOPLE, max(1, (size - 13) // 10))
    view = EntityStore(family.world(PEOPLE + 16)).view
    compiled = compile_policies(policies, actions=GROUPS)
    for _ in compiled.warm(ASKED):
        pass
    expected = answers(compiled, view, requests)
    allowed = sum(allow for allow, _ in expected) / len(expected)
    asked = asked_of(view, requests)
    prepared: dict[str, list[Call] | None] = {}
    with ExitStack() as open_now:
        for name, sizes in COMPARED.items():
            some = requests[: sizes.get(size, 0)]
            if some and name == "cerbos":
                prepared[name] = open_now.enter_context(engines.cerbos(cerbos, rules, some))
            elif some:
                prepared[name] = getattr(engines, name)(rules, some)
        timed = {name: Timed() for name in ("chartgate", *prepared)}
        for name, calls in prepared.items():
            check(name, calls or [], expected)
        cold = Timed()
        gc.collect()
        for _ in range(rounds):
            # Ours is over before the machine notices: several turns, between the others'.
            for name, calls in prepared.items():
                timed["chartgate"].add_ours(compiled, asked)
                if calls is not None:
                    timed[name].add(list(calls))
            timed["chartgate"].add_ours(compiled, asked)
            cold.add_ours(compiled, asked, cold=True)
    found: Figures = {
        "allowed": allowed, "chartgate": timed["chartgate"].figures(), "cold": cold.figures(),
    }  # fmt: skip
    for name, calls in prepared.items():
        found[name] = None if calls is None else timed[name].figures()
    return found


def by_entities(policies: tuple[Policy, ...], counts: tuple[int, ...], rounds: int) -> Figures:
    """Decisions and updates as the entity store grows."""
    compiled = compile_policies(policies, actions=GROUPS)
    for _ in compiled.warm(ASKED):
        pass
    found: Figures = {}
    for count in counts:
        entities = family.world(count)
        before = time.perf_counter()
        store = EntityStore(entities)
        loaded = time.perf_counter() - before
        people = len(entities) - len(family.ROLES) - len(family.PURPOSES)
        requests = family.requests(400, people, 90)
        answers(compiled, store.view, requests)
        figures = best_ours(compiled, store.view, requests, rounds * 3)
        taken = []
        for number in range(min(people, 300)):
            changed = family.person(number)
            one = Entity(
                changed.uid, {**changed.attrs}, changed.parents ^ {EntityUid("Role", "lab")}
            )
            before = time.perf_counter()
            store.update(one)
            taken.append((time.perf_counter() - before) * 1e6)
        before = time.perf_counter()
        store.update(Entity(EntityUid("Role", "lab"), {}, frozenset()))
        role = (time.perf_counter() - before) * 1e3
        found[str(len(entities))] = {
            **figures, "load_ms": loaded * 1e3, "update_p50": statistics.median(taken), "role_ms": role,
        }  # fmt: skip
    return found


def memory(policies: tuple[Policy, ...]) -> Figures:
    """Bytes a policy: the compiled tree, warmed up whole; the policies themselves not counted."""
    gc.collect()
    tracemalloc.start()
    compiled = compile_policies(policies, actions=GROUPS)
    for _ in compiled.warm(ASKED):
        pass
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"policies": len(policies), "bytes_per_policy": held / len(policies)}


def cold_start(rules: list[Rule]) -> tuple[Figures, tuple[Policy, ...]]:
    """From the text of the policies to the first answer, step by step, and to a whole tree."""
    text = "\n".join(family.cedar(rule) for rule in rules)
    view = EntityStore(family.world(PEOPLE)).view
    [request] = family.requests(1, 100, 90)
    found: Figures = {"policies": len(rules)}
    gc.collect()
    begun = time.perf_counter(), time.process_time()

    def over(step: str, since: tuple[float, float]) -> tuple[float, float]:
        now = time.perf_counter(), time.process_time()
        found[f"{step}_s"], found[f"{step}_cpu_s"] = now[0] - since[0], now[1] - since[1]
        return now

    policies = parse_policies({"family": text})
    parsed = over("parse", begun)
    validate(policies, parse_schema(family.SCHEMA, "family.cedarschema"))
    valid = over("validate", parsed)
    compiled = compile_policies(policies.policies, actions=GROUPS)
    answers(compiled, view, [request])
    first = over("first_answer", valid)
    over("cold_start", begun)
    for _ in compiled.warm(ASKED):
        pass
    over("rest_of_tree", first)
    return found, policies.policies


def swap(policies: tuple[Policy, ...], runs: int) -> Figures:
    """Latency of one busy thread, steady and while a version is compiled and put in force.

    The two are measured in turns; all figures are medians of the runs.
    """
    schema = parse_schema(family.SCHEMA, "family.cedarschema")
    versions = [
        validated(policy_set(policies[:n]), schema) for n in (len(policies), len(policies) - 7)
    ]
    engine = Engine(versions[0], family.world(PEOPLE + 16))
    asked = [
        (r.person, r.action, r.record.uid, r.context, r.record)
        for r in family.requests(2_000, PEOPLE, (len(policies) - 13) // 10)
    ]
    clock = time.perf_counter_ns

    def measure(until: Callable[[], bool]) -> list[float]:
        taken: list[float] = []
        while not until():
            for one in asked[:200]:
                before = clock()
                engine.decide(*one)
                taken.append((clock() - before) / 1e3)
        return taken

    for one in asked:
        engine.decide(*one)
    each: list[Figures] = []
    with EngineLoader(engine) as loader:
        for run in range(runs):
            gc.collect()
            end = time.perf_counter() + 1
            with no_collection():
                steady = measure(lambda end=end: time.perf_counter() > end)
                begun = time.perf_counter()
                load = loader.load(versions[(run + 1) % 2])
                during = measure(load.done)
                took = time.perf_counter() - begun
            load.result()
            quiet, busy = percentile(steady, 0.99), percentile(during, 0.99)
            each.append({
                "steady_p50": statistics.median(steady), "steady_p99": quiet,
                "swap_p50": statistics.median(during), "swap_p99": busy, "times": busy / quiet,
                "took_s": took, "decisions_during": len(during),
            })  # fmt: skip
    found = {name: statistics.median(run[name] for run in each) for name in each[0]}
    worst = max(run["times"] for run in each)
    return {"policies": len(policies), "runs": runs, **found, "worst_times": worst}


def shipped(rounds: int) -> Figures:
    """Chartgate's own policies at the enforcement point: every role, label and view."""
    version = load_policy_version(Path(__file__).resolve().parents[1] / "policies")
    oncology = CedarSet.of([EntityUid("Department", "oncology")])
    people = [
        Entity(
            EntityUid("User", role),
            {"departments": oncology, "references": CedarSet.of([])},
            frozenset({EntityUid("Role", role)}),
        )
        for role in version.roles.roles
    ]
    engine = Engine(version, people)
    context = {"purpose": EntityUid("Purpose", "TREAT"), "now": DateTime(0), "source": "hospital"}
    calls: list[Callable[[], Any]] = []
    for one in people:
        for label in version.schema.entities["Category"].enum or ():
            record = Entity(
                EntityUid("Record", "asked"),
                {
                    "category": EntityUid("Category", label),
                    "departments": oncology,
                    "care_team": CedarSet.of([one.uid]),
                },
            )
            asked = (one.uid, EntityUid("Action", "view"), record.uid, context, record)
            calls.append(lambda asked=asked: engine.decide(*asked))
    for call in calls:
        call()
    timed = Timed()
    for _ in range(rounds * 3):
        timed.add(calls)
    return {"policies": len(version.policies), **timed.figures()}


def told(figures: Figures) -> None:
    """The figures as tables."""
    print("\nmicroseconds a decision: median / 99th percentile (times Chartgate's median)")
    for size, row in figures["sizes"].items():
        mine = row["chartgate"]
        print(f"  {size:>6} policies, {row['allowed']:.0%} allowed")
        print(f"      chartgate  {mine['p50']:9.2f} / {mine['p99']:9.2f}")
        print(f"         (cold)  {row['cold']['p50']:9.2f} / {row['cold']['p99']:9.2f}")
        for name in COMPARED:
            if name not in row:
                continue
            theirs = row[name]
            if theirs is None:
                print(f"      {name:10} not installed")
                continue
            ratio = theirs["p50"] / mine["p50"]
            print(f"      {name:10} {theirs['p50']:9.0f} / {theirs['p99']:9.0f}   x {ratio:,.0f}")
    print(f"\nentities, at {figures['entity_policies']} policies")
    for count, row in figures["entities"].items():
        print(
            f"  {count:>6}: {row['p50']:.2f} / {row['p99']:.2f} µs a decision; loaded in "
            f"{row['load_ms']:.0f} ms; one person changed {row['update_p50']:.0f} µs; a role that "
            f"people hold changed {row['role_ms']:.1f} ms"
        )
    own, cold, kept, moved = (figures[k] for k in ("shipped", "cold", "memory", "swap"))

    def both(step: str) -> str:
        return f"{cold[f'{step}_s']:.2f} s (CPU {cold[f'{step}_cpu_s']:.2f})"

    print(f"\nChartgate's own {own['policies']} policies: {own['p50']:.2f} / {own['p99']:.2f} µs")
    print(
        f"cold start from the text of {cold['policies']} policies: {both('cold_start')}: "
        f"parsing {both('parse')}, strict validation {both('validate')}, compiling to the first "
        f"answer {both('first_answer')}; the rest of the tree, in the background: "
        f"{both('rest_of_tree')}"
    )
    print(f"memory: {kept['bytes_per_policy'] / 1024:.1f} KiB a policy at {kept['policies']}")
    print(
        f"swap under load, {moved['policies']} policies, medians of {moved['runs']} runs: p99 "
        f"{moved['swap_p99']:.1f} µs, steady {moved['steady_p99']:.1f} µs (x {moved['times']:.2f}, "
        f"at worst x {moved['worst_times']:.2f}); median {moved['swap_p50']:.1f}, steady "
        f"{moved['steady_p50']:.1f} µs; in force after {moved['took_s']:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
    parser.add_argument("--sizes", help="numbers of policies, with commas between them")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cerbos", help="the cerbos binary, if it is not on the PATH")
    options = parser.parse_args()
    rounds = 3 if options.quick else 5
    sizes = SIZES[:2] if options.quick else SIZES
    if options.sizes:
        sizes = tuple(int(size) for size in options.sizes.split(","))
    rules = family.rules(max(sizes))
    cold, policies = cold_start(rules)
    # What lives as long as the run is no work for the collector.
    gc.collect()
    gc.freeze()
    cerbos = engines.cerbos_binary(options.cerbos)
    some = min(1_000, len(policies))
    figures: Figures = {
        "python": sys.version.split()[0],
        "cold": cold,
        "sizes": {str(n): side_by_side(rules[:n], policies[:n], rounds, cerbos) for n in sizes},
        "entity_policies": some,
        "entities": by_entities(
            policies[:some], (10, 1_000) if options.quick else (10, 1_000, 50_000), rounds
        ),
        "shipped": shipped(rounds),
        "memory": memory(policies[:some]),
        "swap": swap(policies[:some], 2 if options.quick else 7),
    }
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        told(figures)


if __name__ == "__main__":
    main()
