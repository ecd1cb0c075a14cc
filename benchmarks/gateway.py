"""The gate beside a direct connection, in one run: a point query, many clients, a large result.

    python benchmarks/gateway.py [--rounds N] [--json]

The gate is the demo in a process of its own. Both sides are psycopg 3 from this process, in turn,
round by round, so that a machine that slows down slows both. Direct: the service account on the
source's Unix socket and the raw table. Gate: Marcus Welby over TCP, the same question, rewritten,
decided and recorded on disk before the answer leaves. Prints medians and the ratio to direct.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from chartgate.adapters.audit_desk import password_in
from chartgate.adapters.state import State

PERSON = "mwelby"
POINT = "SELECT last_name, birth_date, phone FROM patient WHERE patient_id = %s"
LARGE = (
    "SELECT v.taken_at, v.systolic, v.diastolic, v.heart_rate FROM vital_sign v "
    "CROSS JOIN generate_series(1, 1000) LIMIT 100000"
)
CLIENTS = 8
POINTS = 300


@contextmanager
def running() -> Iterator[tuple[str, str]]:
    """A demo in a folder of its own; answers how to connect: to the source, to the gate."""
    with tempfile.TemporaryDirectory(prefix="chartgate-bench-") as folder:
        state = State(Path(folder) / "state")
        command = [sys.executable, "-m", "chartgate", "demo", "--port", "0", "--state"]
        demo = subprocess.Popen([*command, str(state.root)], stdout=subprocess.PIPE, text=True)
        try:
            assert demo.stdout is not None
            if not any("Ctrl-C" in line for line in demo.stdout):
                raise SystemExit("the demo did not start")
            instance = state.instance()
            gate = make_conninfo(
                host=instance.host,
                port=instance.port,
                dbname=instance.database,
                user=PERSON,
                password=password_in(state.passfile, PERSON),
            )
            yield instance.legacy, gate
        finally:
            demo.terminate()
            demo.wait(30)


Ask = Callable[[psycopg.Connection[Any]], object]


def timed(ask: Ask, connection: psycopg.Connection[Any], times: int) -> list[float]:
    """Milliseconds of each of so many runs."""
    taken = []
    for _ in range(times):
        before = time.perf_counter()
        ask(connection)
        taken.append((time.perf_counter() - before) * 1e3)
    return taken


def one_client(dsns: dict[str, str], rounds: int, times: int, ask: Ask) -> dict[str, float]:
    """Median milliseconds of a question, direct and through the gate."""
    taken: dict[str, list[float]] = {side: [] for side in dsns}
    open_now = {side: psycopg.connect(dsn, autocommit=True) for side, dsn in dsns.items()}
    for connection in open_now.values():
        timed(ask, connection, max(1, times // 10))
    for _ in range(rounds):
        for side, connection in open_now.items():
            taken[side] += timed(ask, connection, times)
    for connection in open_now.values():
        connection.close()
    return {side: statistics.median(all_of) for side, all_of in taken.items()}


async def many_clients(dsn: str, key: object) -> float:
    """Point queries a second with so many clients at once, each waiting for its answer."""
    clients = [await psycopg.AsyncConnection.connect(dsn, autocommit=True) for _ in range(CLIENTS)]

    async def work(client: psycopg.AsyncConnection[Any]) -> None:
        for _ in range(POINTS):
            await (await client.execute(POINT, (key,), prepare=True)).fetchall()

    before = time.perf_counter()
    jobs: list[Awaitable[None]] = [work(client) for client in clients]
    await asyncio.gather(*jobs)
    took = time.perf_counter() - before
    for client in clients:
        await client.close()
    return CLIENTS * POINTS / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    with running() as (direct, gate):
        dsns = {"direct": direct, "gate": gate}
        with psycopg.connect(gate) as first:
            row = first.execute("SELECT min(patient_id) FROM patient").fetchone()
        key = row[0] if row else None
        for name, times, ask in (
            (
                "point query, ms",
                POINTS,
                lambda c: c.execute(POINT, (key,), prepare=False).fetchall(),
            ),
            (
                "point query, prepared, ms",
                POINTS,
                lambda c: c.execute(POINT, (key,), prepare=True).fetchall(),
            ),
            ("100,000 rows, ms", 2, lambda c: c.execute(LARGE).fetchall()),
        ):
            figures[name] = one_client(dsns, options.rounds, times, ask)
        rates: dict[str, list[float]] = {side: [] for side in dsns}
        for _ in range(options.rounds):
            for side, dsn in dsns.items():
                rates[side].append(asyncio.run(many_clients(dsn, key)))
        name = f"{CLIENTS} clients, prepared point queries a second"
        figures[name] = {side: statistics.median(all_of) for side, all_of in rates.items()}
    for figure in figures.values():
        figure["difference"] = figure["gate"] - figure["direct"]
        figure["ratio"] = figure["gate"] / figure["direct"]
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{'':46}{'direct':>11}{'gate':>11}{'difference':>12}{'ratio':>8}")
    for name, figure in figures.items():
        print(
            f"{name:46}{figure['direct']:11.2f}{figure['gate']:11.2f}"
            f"{figure['difference']:12.2f}{figure['ratio']:8.2f}"
        )


if __name__ == "__main__":
    main()
