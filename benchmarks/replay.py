"""How fast a recorded log is decided again: events a second, from packed segments on disk.

Makes a log of realistic shapes (statements of a few dozen kinds by some hundred people, each with
its release and completion), then reads and decides it under the shipped policies and under a
candidate, and prints beside that what reading alone and what decoding every event in full would do.

    python benchmarks/replay.py [EVENTS]
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.policy_files import load_data_map, read_bundle
from chartgate.adapters.replay_log import RecordedPeople, Requests
from chartgate.adapters.signing import load_or_create_signer
from chartgate.app.entitlement import Asker, DecisionPoint, Entitlement
from chartgate.app.policy_bundle import Bundle, open_bundle
from chartgate.app.replay import Replay
from chartgate.app.replay_alike import Alike, Classes
from chartgate.app.replay_report import replay
from chartgate.app.session_views import Source
from chartgate.app.table_uses import table_use
from chartgate.demo.generator_schema import TABLES
from chartgate.demo.shipped import shipped
from chartgate.model.event import Completed, Decision, Release, TableUse, decode, encode
from chartgate.model.principal import Assignment, Person
from chartgate.sql.views import Column, Table, TableName

ROLES = (
    ("physician", "TREAT", 120),
    ("nurse", "TREAT", 200),
    ("receptionist_scheduler", "PATADMIN", 60),
    ("billing_coder", "HPAYMT", 40),
    ("pharmacist", "TREAT", 30),
    ("behavioral_health_clinician", "TREAT", 20),
    ("administrative_assistant", "HPAYMT", 30),
)
DEPARTMENTS = ("cardiology", "oncology", "emergency", "psychiatry", "surgery", "pediatrics")
START = datetime(2026, 3, 2, tzinfo=UTC)
BATCH = 4_096
STATEMENTS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", nargs="?", type=int, default=1_000_000)
    events = parser.parse_args().events
    bundle = read_bundle(shipped("policies"))
    point, source = decision_point(bundle), catalog()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        directory, people = Path(folder) / "log", staff()
        write(Path(folder), directory, entries(point, source, people, events))
        print(f"{events:,} events made in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        for title, work in (
            ("reading alone, checksums included", lambda: sum(1 for _ in read(directory))),
            (
                "every event decoded in full",
                lambda: sum(decode(e) is None for _, e in read(directory)),
            ),
        ):
            wall, cpu = timed(work)
            print(f"{title:45}{events / wall:12,.0f} events/s, {events / cpu:,.0f} a core-second")
        candidate = narrowed(bundle)
        for title, tried in (("the same policies", bundle), ("a candidate", candidate)):
            again(title, tried, bundle, source, people, directory, events)


def again(
    title: str,
    tried: Bundle,
    in_force: Bundle,
    source: Source,
    people: list[Person],
    directory: Path,
    events: int,
) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    requests = Requests(RecordedPeople({p.name: p for p in people}))
    requests.read(read(directory))
    counted = time.perf_counter() - wall
    version, known = open_bundle(tried), decision_point(in_force)
    decides = Replay(decision_point(tried), version.schema, source, {known.policies.hash: known})
    report = replay(requests.tallies(), decides.outcome, tried.hash)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{'replay under ' + title:45}{events / wall:12,.0f} events/s"
        f", {events / cpu:,.0f} a core-second"
        f"   ({wall:.1f} s, {cpu:.1f} s of one core; counting {counted:.1f} s; "
        f"{report.decisions:,} decisions, {report.requests:,} distinct requests, "
        f"{report.flipped:,} flip)"
    )


def read(directory: Path) -> Iterator[tuple[int, bytes]]:
    return LogReader(directory).entries()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def narrowed(bundle: Bundle) -> Bundle:
    """Nurses without laboratory results."""
    path = "roles/nurse.cedar"
    return Bundle({**bundle.files, path: bundle.text(path).replace('Category::"labs", ', "", 1)})


def decision_point(bundle: Bundle) -> DecisionPoint:
    version = open_bundle(bundle)
    data_map = load_data_map(shipped("maps") / "hospital.toml", version.schema)
    return DecisionPoint(version.policies, version.schema, version.roles, data_map)


def catalog() -> Source:
    tables = {}
    for number, table in enumerate(TABLES):
        columns = tuple(
            Column(c.name, c.type.removesuffix(" NOT NULL").replace("timestamp", TIMESTAMP))
            for c in table.columns
        )
        name = TableName("public", table.name)
        tables[name] = Table(name, 16_384 + number, columns, (table.key,))
    return Source(tables, {})


TIMESTAMP = "timestamp without time zone"


def staff() -> list[Person]:
    rng = random.Random(1)
    found = []
    for role, _, count in ROLES:
        for _ in range(count):
            number = len(found)
            held = Assignment(role, rng.choice(DEPARTMENTS), START, None, f"HR-{number}")
            found.append(Person(f"u-{number:08x}", f"p{number}", f"P {number}", True, (held,)))
    return found


def entries(
    point: DecisionPoint, source: Source, people: list[Person], count: int
) -> Iterator[bytes]:
    rng = random.Random(2)
    purposes = {role: purpose for role, purpose, _ in ROLES}
    names = [name for name in source.tables if name.name in point.data_map.tables]
    asked = []
    for number in range(STATEMENTS):
        used = rng.sample(names, rng.choice((1, 1, 2, 3)))
        columns = {
            name: tuple(c.name for c in source.tables[name].columns if rng.random() < 0.5)
            for name in used
        }
        listed = ", ".join(f"t{n}.{c}" for n, name in enumerate(used) for c in columns[name])
        tables = ", ".join(f"{name} t{n}" for n, name in enumerate(used))
        asked.append((f"SELECT {listed or '$1'} FROM {tables} WHERE $2", columns, f"{number:016x}"))
    shapes = []
    classes = Classes((point.policies,), point.data_map.source)
    decided: dict[Asker, Entitlement] = {}
    for person in people:
        asker = Asker(person, person.assignments, purposes[person.assignments[0].role])
        alike = classes.of(asker) or Alike(asker, ())
        if alike.asker not in decided:
            decided[alike.asker] = point.entitlement(
                alike.asker, source.tables, at=START, secret=""
            )
        entitled = decided[alike.asker]
        mine: list[tuple[str, str, tuple[TableUse, ...]]] = []
        for text, columns, digest in rng.sample(asked, 12):
            uses = tuple(
                msgspec.structs.replace(
                    table_use(entitled.planned(n), c),
                    residual=alike.residual(entitled.planned(n).view),
                )
                for n, c in columns.items()
            )
            mine.append((text, digest, uses))
        shapes.append((person, asker, mine))
    for index in range(0, count, 3):
        person, asker, mine = rng.choice(shapes)
        text, digest, uses = rng.choice(mine)
        at = START + timedelta(milliseconds=20 * index)
        common = {
            "at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "node": "node1",
            "session": f"{hash(person.uid) & 0xFFFFFFFFFFFF:012x}",
            "person": person.uid,
            "request": f"{index:x}",
        }
        yield encode(
            Decision(
                **common,
                allowed=True,
                action="select",
                purpose=asker.purpose,
                statement=text,
                statement_length=len(text),
                statement_class=digest,
                tables=uses,
                determining=("a_policy", "another_policy"),
                policy_set=point.policies.hash,
                data_map=point.data_map.hash,
                roles=asker.roles,
                departments=asker.departments,
                assignments=tuple(a.held() for a in asker.assignments),
                context={"source": "hospital", "now": common["at"]},
            )
        )
        seen = tuple(f"{rng.getrandbits(128):032x}" for _ in range(rng.choice((1, 1, 1, 20))))
        yield encode(Release(**common, decision=index, seen=seen, rows=len(seen)))
        yield encode(Completed(**common, decision=index, rows=len(seen)))


def write(root: Path, directory: Path, found: Iterator[bytes]) -> None:
    signer = load_or_create_signer(root / "log.key", "benchmark.example/log")
    with LogFiles.open(directory, signer) as log:
        batch: list[bytes] = []
        for entry in found:
            batch.append(entry)
            if len(batch) == BATCH:
                log.append(batch)
                batch = []
        if batch:
            log.append(batch)


if __name__ == "__main__":
    main()
