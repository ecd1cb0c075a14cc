"""How soon a revocation is obeyed by every one of three nodes that are under load.

    python benchmarks/revocation.py [--count 100] [--clients 8] [--json]

Everything is real: both databases of the demo with a small hospital, the gate with the audit log's
one writer, three deciding processes (``Node``) that record through it. Each process keeps ``--clients``
requests under way all the time, about random people, each recorded with an fsync before it is
answered. One after the other, ``--count`` grants and as many assignments are revoked; each node asks
about that person over and over. What is told is the time from the return of the commit to the first
denial, on the last of the three nodes to deny, and what the nodes decided meanwhile.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from chartgate.adapters.control_plane import open_control_plane
from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.adapters.grant_store import GrantDesk
from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.node import Node
from chartgate.adapters.policy_in_force import load_for
from chartgate.adapters.state import State
from chartgate.app.grants import Given
from chartgate.app.node_asked import Asked, Caller
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.demo import legacy
from chartgate.demo.generator import generate
from chartgate.demo.run import Prepared, prepared, serving
from chartgate.model.service import EVERYTHING, Service

NODES = 3
PATIENTS = 300
CALLER = Caller(Service("s_0123456789abcdef", "bench", True, EVERYTHING), "https")


def question(who: str, patient: str, purpose: str) -> Question:
    """May she see the patient's lab results?"""
    record = Resource("Record", patient, {"patient": patient, "category": "labs"})
    return Question(Subject("User", who), Action("view"), record, {"purpose": purpose})


# --- a node, in a process of its own -----------------------------------------------------


async def node(root: Path, number: int, clients: int, patients: list[str]) -> None:
    """Decide without end; for each name on standard input, say when it was first denied."""
    state = State(root)
    decided = 0
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, "")

    def tell(**facts: Any) -> None:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()

    async with (
        RemoteLog(state.log_socket) as log,
        Node(state, state.instance(), f"bench/decide-{number}", log) as opened,
    ):
        people = sorted(opened.people.persons)

        async def client() -> None:
            nonlocal decided
            while True:
                asked = question(random.choice(people), random.choice(patients), "TREAT")
                await opened.answer(Asked((asked,), "load"), CALLER)
                decided += 1

        async def allowed(who: str, patient: str, purpose: str) -> bool:
            asked = question(who, patient, purpose)
            answered = await opened.answer(Asked((asked,), "probe"), CALLER)
            return answered.rulings[0].allowed

        threading.Thread(target=read, daemon=True).start()
        load = [asyncio.create_task(client()) for _ in range(clients)]
        tell(ready=True)
        while line := await lines.get():
            who, patient, purpose = line.split()
            while not await allowed(who, patient, purpose):  # noqa: ASYNC110  (asks another process)
                await asyncio.sleep(0.005)
            tell(allowed=who)
            while await allowed(who, patient, purpose):
                pass
            tell(denied=who, at=time.time_ns(), decided=decided)
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)


# --- the whole ---------------------------------------------------------------------------


@contextmanager
def gate(root: Path) -> Iterator[Prepared]:
    """The demo with a small hospital, its gate on a thread."""
    state = State(root)
    state.create()
    with EmbeddedPostgres(state.legacy_pg, roles=(legacy.SERVICE,)) as server:
        made = generate(random.Random(7), date.today(), patients=PATIENTS)
        legacy.load(server, legacy.hospital_source(made))
    (state.root / "data").write_text("generated", "utf-8")
    with prepared(root, data=None, port=0, host="127.0.0.1", progress=lambda _: None) as ready:
        loop, started = asyncio.new_event_loop(), Future[int]()
        stop = asyncio.Event()

        async def run() -> None:
            async with serving(ready) as port:
                started.set_result(port)
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
        thread.start()
        started.result(60)
        try:
            yield ready
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(60)


def measure(ready: Prepared, count: int, clients: int) -> dict[str, Any]:
    state = ready.state
    parts = psycopg.conninfo.conninfo_to_dict(ready.instance.legacy)
    user = psycopg.conninfo.conninfo_to_dict(ready.control)["user"]
    with psycopg.connect(**{**parts, "user": user}) as sql:
        rows = sql.execute(
            "SELECT DISTINCT patient_id FROM encounter WHERE department = 'cardiology' LIMIT 50"
        ).fetchall()
    patients = [str(row[0]) for row in rows]
    with open_control_plane(ready.control) as control:
        desk = GrantDesk(state, ready.instance, load_for(state, ready.instance), control)
        petra = desk.sign_in("pofficer", password(state, "pofficer"))
        held: dict[str, dict[str, Any]] = {"grants": {}, "assignments": {}}
        end = datetime.now(UTC) + timedelta(hours=2)
        began = datetime(2026, 1, 1, tzinfo=UTC)
        for number in range(count):
            who = f"rev_a{number}"
            control.upsert_person(who, who)
            held["assignments"][who] = control.assign(
                who, "physician", "cardiology", valid_from=began
            )
            who = f"rev_g{number}"
            control.upsert_person(who, who)
            control.assign(who, "receptionist_scheduler", "cardiology", valid_from=began)
            given = Given(("view",), categories=("labs",), patient=patients[0])
            held["grants"][who] = desk.issue(petra, who, given, until=end, reason="benchmark").id
        running = [start(state, number, clients, patients) for number in range(1, NODES + 1)]
        try:
            for one in running:
                assert heard(one)["ready"]
            found: dict[str, Any] = {}
            for kind, purpose in (("grants", "PATADMIN"), ("assignments", "TREAT")):
                each, began_at, decided = [], time.time(), 0
                for who, what in held[kind].items():
                    for one in running:
                        one.stdin.write(f"{who} {patients[0]} {purpose}\n")
                        one.stdin.flush()
                    for one in running:
                        assert heard(one)["allowed"] == who
                    if kind == "grants":
                        desk.revoke(petra, what, reason="benchmark")
                    else:
                        control.end_assignment(what, at=datetime.now(UTC))
                    committed = time.time_ns()
                    said = [heard(one) for one in running]
                    decided = sum(one["decided"] for one in said)
                    each.append(max(0, max(one["at"] for one in said) - committed) / 1e6)
                each.sort()
                found[kind] = {
                    "revoked": count,
                    "p50_ms": round(each[len(each) // 2], 1),
                    "p99_ms": round(each[-(-len(each) * 99 // 100) - 1], 1),
                    "max_ms": round(each[-1], 1),
                    "decided_until_then": decided,
                    "seconds": round(time.time() - began_at, 1),
                }
        finally:
            for one in running:
                one.stdin.close()
                one.wait(30)
    return found


def start(state: State, number: int, clients: int, patients: list[str]) -> Any:
    return subprocess.Popen(
        [
            sys.executable,
            __file__,
            "--node",
            json.dumps([str(state.root), number, clients, patients]),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


def heard(process: Any) -> dict[str, Any]:
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a node has ended")
    found: dict[str, Any] = json.loads(line)
    return found


def password(state: State, name: str) -> str:
    for line in state.passfile.read_text("utf-8").splitlines():
        *_, user, word = line.split(":", 4)
        if user == name:
            return word
    raise KeyError(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--clients", type=int, default=8, help="requests under way, of each node")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--node", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.node:
        root, number, clients, patients = json.loads(chosen.node)
        asyncio.run(node(Path(root), number, clients, patients))
        return
    with tempfile.TemporaryDirectory() as folder, gate(Path(folder) / "state") as ready:
        found = measure(ready, chosen.count, chosen.clients)
    if chosen.json:
        print(json.dumps({"nodes": NODES, "clients": chosen.clients, **found}))
        return
    print(f"{NODES} nodes, {chosen.clients} requests under way on each; commit to denial on all:")
    print(f"{'':12} {'revoked':>8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'decisions/s':>12}")
    before, seconds = 0, 0.0
    for kind, one in found.items():
        rate = (one["decided_until_then"] - before) / one["seconds"]
        before, seconds = one["decided_until_then"], seconds + one["seconds"]
        print(
            f"{kind:12} {one['revoked']:>8} {one['p50_ms']:>8} {one['p99_ms']:>8} "
            f"{one['max_ms']:>8} {rate:>12,.0f}"
        )


if __name__ == "__main__":
    main()
