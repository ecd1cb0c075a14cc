"""The gate beside a direct connection, in one run: latency of a point query, a large result.

    python benchmarks/gateway.py [--rounds N] [--json]

Both sides are psycopg 3 from one process, in turn, round by round, so that a machine that slows
down slows both. Direct: the service account on the source's Unix socket, the raw table. Gate:
Marcus Welby over TCP, the same question, rewritten, decided and recorded (one fdatasync or more
each). Prints medians and the ratio gate / direct.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from chartgate.adapters.audit_desk import password_in
from chartgate.demo.run import Prepared, prepared, serving

PERSON = "mwelby"
POINT = "SELECT last_name, birth_date, phone FROM patient WHERE patient_id = %s"
LARGE = (
    "SELECT v.taken_at, v.systolic, v.diastolic, v.heart_rate FROM vital_sign v "
    "CROSS JOIN generate_series(1, 1000) LIMIT 100000"
)


@contextmanager
def running() -> Iterator[tuple[Prepared, int]]:
    """A demo in a folder of its own, its gate on a thread of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="chartgate-bench-") as folder,
        prepared(
            Path(folder) / "state", data=None, port=0, host="127.0.0.1", progress=lambda _: None
        ) as ready,
    ):
        started: list[int] = []
        is_up, may_end = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def serve() -> None:
            async with serving(ready) as port:
                started.append(port)
                is_up.set()
                await may_end.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        is_up.wait(60)
        try:
            yield ready, started[0]
        finally:
            loop.call_soon_threadsafe(may_end.set)
            thread.join()


def timed(run: Callable[[], object], times: int) -> list[float]:
    """Seconds of each of so many runs."""
    taken = []
    for _ in range(times):
        before = time.perf_counter()
        run()
        taken.append(time.perf_counter() - before)
    return taken


def drained(connection: psycopg.Connection[Any]) -> int:
    """Rows of the large result."""
    with connection.cursor() as cursor:
        return len(cursor.execute(LARGE).fetchall())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with running() as (ready, port):
        password = password_in(ready.state.passfile, PERSON)
        gate_dsn = make_conninfo(
            host="127.0.0.1", port=port, dbname="hospital", user=PERSON, password=password
        )
        with (
            psycopg.connect(ready.instance.legacy, autocommit=True) as direct,
            psycopg.connect(gate_dsn, autocommit=True) as gate,
        ):
            key = gate.execute("SELECT min(patient_id) FROM patient").fetchone()
            figures: dict[str, dict[str, float]] = {}
            cases: list[tuple[str, int, Callable[[psycopg.Connection[Any]], Callable[[], object]]]]
            cases = [
                (
                    "point query, new each time (unprepared)",
                    300,
                    lambda c: lambda: c.execute(POINT, key, prepare=False).fetchall(),
                ),
                (
                    "point query, prepared",
                    300,
                    lambda c: lambda: c.execute(POINT, key, prepare=True).fetchall(),
                ),
                ("100,000 rows", 1, lambda c: lambda: drained(c)),
            ]
            for name, times, make in cases:
                sides: dict[str, list[float]] = {"direct": [], "gate": []}
                for connection in (direct, gate):
                    timed(make(connection), max(1, times // 10))
                for _ in range(options.rounds):
                    for side, connection in (("direct", direct), ("gate", gate)):
                        sides[side] += timed(make(connection), times)
                figures[name] = {
                    "direct_ms": statistics.median(sides["direct"]) * 1e3,
                    "gate_ms": statistics.median(sides["gate"]) * 1e3,
                }
    for figure in figures.values():
        figure["added_ms"] = figure["gate_ms"] - figure["direct_ms"]
        figure["ratio"] = figure["gate_ms"] / figure["direct_ms"]
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{'':42}{'direct ms':>11}{'gate ms':>11}{'added ms':>11}{'ratio':>8}")
    for name, figure in figures.items():
        print(
            f"{name:42}{figure['direct_ms']:11.3f}{figure['gate_ms']:11.3f}"
            f"{figure['added_ms']:11.3f}{figure['ratio']:8.1f}"
        )


if __name__ == "__main__":
    main()
