"""How long a node takes to load 100,000 people with their roles, and what they take in memory.

    python benchmarks/node_load.py [--people 100000] [--roles 50] [--json]

A PostgreSQL of its own in a temporary folder is filled three times: everybody with one to three of
the roles, everybody with all of them (5,000,000 assignments), and the latter again in random order on
disk, as years of changes leave it. A process of its own then opens a feed on it, and reports the time
to the first snapshot, its resident memory before and after, its peak, and the time from the commit of
one change to the snapshot that has it.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from chartgate.adapters.control_plane import open_control_plane
from chartgate.adapters.control_plane_feed import ControlPlaneFeed
from chartgate.adapters.embedded_postgres import EmbeddedPostgres

CHANGES = 20
SHAPES = {
    "1-3 roles each": ("1 + i % 3", ""),
    "all roles each": ("{roles}", ""),
    "all roles each, in random order": ("{roles}", "ORDER BY random()"),
}


def fill(conninfo: str, people: int, roles: int, shape: str) -> int:
    """People and assignments; answers how many assignments."""
    each, order = SHAPES[shape]
    open_control_plane(conninfo).close()
    with psycopg.connect(conninfo, autocommit=True) as sql:
        sql.execute("SET session_replication_role = replica; SET work_mem = '512MB'")
        sql.execute("DELETE FROM assignment")
        sql.execute(
            "INSERT INTO role (name, title) SELECT 'role_' || n, 'Role ' || n "
            "FROM generate_series(1, %s) n ON CONFLICT DO NOTHING",
            [roles],
        )
        sql.execute(
            "INSERT INTO person (uid, name, full_name, scram_verifier, credential_until) "
            "SELECT 'p_' || lpad(to_hex(n), 16, '0'), 'user' || n, 'Person Number ' || n, "
            "'SCRAM-SHA-256$4096:' || repeat('x', 110), '2027-01-01' "
            "FROM generate_series(1, %s) n ON CONFLICT DO NOTHING",
            [people],
        )
        sql.execute(
            "INSERT INTO assignment (person_uid, role, department, valid_from, valid_until, "
            "reference) SELECT 'p_' || lpad(to_hex(i), 16, '0'), 'role_' || r, "
            "'department_' || (i + r) % 40, "
            "'2026-01-01'::timestamptz + (i % 365) * interval '1 day', "
            "CASE WHEN r % 2 = 0 THEN '2027-01-01'::timestamptz + r * interval '1 day' END, "
            "CASE WHEN r % 10 = 0 THEN 'HR-' || i END "
            f"FROM generate_series(1, {people}) i, "
            f"LATERAL generate_series(1, {each.format(roles=roles)}) r {order}"
        )
        sql.execute("VACUUM ANALYZE")
        row = sql.execute("SELECT count(*) FROM assignment").fetchone()
        return int(row[0]) if row else 0


def memory(field: str) -> int:
    """Of this process, in bytes."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


async def load(conninfo: str) -> dict[str, Any]:
    """Open a feed, measure, change somebody a few times."""
    before, began = memory("VmRSS"), time.perf_counter()
    snapshots: list[Any] = []
    async with (
        ControlPlaneFeed(conninfo, on_change=snapshots.append) as feed,
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as sql,
    ):
        took = time.perf_counter() - began
        after, peak = memory("VmRSS"), memory("VmHWM")
        # The first read of a person is when her assignments become values.
        began = time.perf_counter()
        held = [len(feed.snapshot.persons[f"user{n}"].assignments) for n in range(1, 1001)]
        first_use = (time.perf_counter() - began) / len(held)
        seen = []
        for number in range(1, CHANGES + 1):
            await sql.execute(
                "UPDATE assignment SET valid_until = greatest(valid_from, now()) "
                "WHERE person_uid = 'p_' || lpad(to_hex(%s::int), 16, '0') AND role = 'role_1'",
                [number],
            )
            began, count = time.perf_counter(), len(snapshots)
            while len(snapshots) == count:  # noqa: ASYNC110  (the condition is in another process)
                await asyncio.sleep(0.0002)
            seen.append(time.perf_counter() - began)
    return {
        "seconds": round(took, 2),
        "rss_mb": round(after / 1e6),
        "rss_grown_mb": round((after - before) / 1e6),
        "peak_mb": round(peak / 1e6),
        "first_use_us": round(first_use * 1e6, 1),
        "change_seen_ms": round(sorted(seen)[len(seen) // 2] * 1e3, 1),
        "change_seen_max_ms": round(max(seen) * 1e3, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--roles", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--load", metavar="CONNINFO", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.load:
        print(json.dumps(asyncio.run(load(chosen.load))))
        return
    found = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "pg") as server,
    ):
        conninfo = server.conninfo("postgres", server.superuser)
        for shape in SHAPES:
            count = fill(conninfo, chosen.people, chosen.roles, shape)
            run = subprocess.run(
                [sys.executable, __file__, "--load", conninfo],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found[shape] = {"assignments": count, **json.loads(run.stdout)}
            if not chosen.json:
                print(f"{chosen.people:,} people, {count:,} assignments ({shape})")
                for name, value in found[shape].items():
                    print(f"  {name:20} {value:>12,}")
    if chosen.json:
        print(json.dumps({"people": chosen.people, "roles": chosen.roles, "shapes": found}))


if __name__ == "__main__":
    main()
