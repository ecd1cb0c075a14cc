"""The decision service under load: the doors, the decision, the log, and Cerbos beside it.

    python benchmarks/service.py [--quick] [--json] [--cerbos PATH] [--directory DIR]

43 policies of a hospital (``policy_family``), 400 different requests in turn. One worker, which
writes the log itself, is on core 0 (``apart``: with the writer as a process beside it, as several
workers have it); the load comes from core 1 (``wrk``, and a client of our own for one connection).
``per core`` is decisions for each second of processor time that the server *and* the writer took, so
that other work on the machine does not count; ``a second`` is what the clock showed.
"""

import argparse
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import policy_engines as engines
import policy_family as family
import service_node as bench

from chartgate.app.node_asked import Asked, Caller

HERE = Path(__file__).resolve().parent
POLICIES = 43
BATCH = 100
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
LUA = """
local asked = {}
function init(args)
  local headers = {["Content-Type"] = "application/json", ["Authorization"] = "Bearer %(token)s"}
  for line in io.lines("%(bodies)s") do
    asked[#asked + 1] = wrk.format("POST", "%(path)s", headers, line)
  end
end
local next_one = 0
function request()
  next_one = next_one %% #asked + 1
  return asked[next_one]
end
function done(summary, latency, requests)
  local wrong = summary.errors.status + summary.errors.connect + summary.errors.read
  io.write(string.format('RESULT {"requests":%%d,"micros":%%d,"wrong":%%d,"p50":%%f,"p99":%%f}\\n',
    summary.requests, summary.duration, wrong, latency:percentile(50), latency:percentile(99)))
end
"""


def pinned(core: int) -> Callable[[], None] | None:
    """For ``preexec_fn``; None where there is one core only."""
    cores = sorted(os.sched_getaffinity(0))
    return (lambda: os.sched_setaffinity(0, {cores[core % len(cores)]})) if len(cores) > 1 else None


def cpu_seconds(*pids: int) -> float:
    """Processor time of processes so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


@dataclass
class Served:
    """A server under test."""

    port: int
    pids: tuple[int, ...]
    folder: Path


@contextmanager
def process(arguments: list[str], told: str = "") -> Iterator[tuple[int, str]]:
    """A program on core 0; its pid and the first line that it says."""
    running = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=pinned(0),  # noqa: PLW1509  there is one thread here
    )
    assert running.stdin is not None
    assert running.stdout is not None
    try:
        if told:
            running.stdin.write(told + "\n")
            running.stdin.flush()
        line = running.stdout.readline()
        if not line:
            raise SystemExit(f"{arguments[-1]} did not start")
        yield running.pid, line
    finally:
        running.stdin.close()
        running.terminate()
        running.wait(30)


@contextmanager
def writer(directory: Path) -> Iterator[tuple[int, Path]]:
    """The node's one writer."""
    state = Path(tempfile.mkdtemp(dir=directory))
    state.chmod(0o700)
    arguments = ["-m", "chartgate.adapters.log_service", "--state", str(state)]
    try:
        with process([*arguments, "--node", "bench", "--origin", "bench.example/log"]) as (pid, _):
            yield pid, state / "run" / "log.sock"
    finally:
        shutil.rmtree(state)


@contextmanager
def served(
    kind: str,
    durability: str,
    directory: Path,
    *,
    log: tuple[int, Path] | None = None,
    tls: bool = False,
) -> Iterator[Served]:
    """One worker, which writes the log itself unless ``log`` is of a writer."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory(dir=directory) as state,
    ):
        told = {
            "folder": folder, "kind": kind, "policies": POLICIES, "durability": durability,
            "tls": tls, "log": "" if log is None else str(log[1]), "state": state,
        }  # fmt: skip
        with process([str(HERE / "service_server.py")], json.dumps(told)) as (pid, line):
            pids = (pid,) if log is None else (pid, log[0])
            yield Served(json.loads(line)["port"], pids, Path(folder))


def bodies(kind: str, batch: int = 1) -> list[bytes]:
    """What is asked."""
    asked = [bench.question(kind, n, r) for n, r in enumerate(bench.requests())]
    if batch == 1:
        return [msgspec.json.encode(question) for question in asked]
    return [
        msgspec.json.encode({"evaluations": asked[at : at + batch]})
        for at in range(0, len(asked), batch)
    ]


def lists(kind: str) -> list[bytes]:
    """A hundred records of a list that one person has before her; each of 40 people."""
    asked = [bench.question(kind, n, r) for n, r in enumerate(bench.requests())]
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
        for at, one in enumerate(asked[:40])
    ]


def wrk(
    at: Served,
    asked: list[bytes],
    path: str,
    connections: int,
    seconds: float,
    scheme: str = "http",
) -> dict[str, float]:
    """Load from core 1."""
    listed = at.folder / "bodies"
    listed.write_bytes(b"\n".join(asked) + b"\n")
    script = at.folder / "load.lua"
    script.write_text(LUA % {"token": bench.TOKEN, "bodies": listed, "path": path})
    command = [
        "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(script),
        f"{scheme}://127.0.0.1:{at.port}{path}",
    ]  # fmt: skip
    before = cpu_seconds(*at.pids)
    said = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=pinned(1))
    took = cpu_seconds(*at.pids) - before
    found = re.search(r"^RESULT (.*)$", said.stdout, re.MULTILINE)
    assert found is not None, said.stdout + said.stderr
    result: dict[str, float] = json.loads(found[1])
    if result["wrong"] > result["requests"] / 50:  # a few: refused while others had the core
        raise SystemExit(f"{result['wrong']:.0f} requests were not answered")
    return {**result, "rate": result["requests"] / result["micros"] * 1e6,
            "cpu": took / result["requests"] * 1e6}  # fmt: skip


def one_connection(
    at: Served, asked: list[bytes], seconds: float, *, context: ssl.SSLContext | None = None
) -> dict[str, float]:
    """A client of our own: blocking, one question after the other."""
    before = os.sched_getaffinity(0)
    if (pin := pinned(1)) is not None:
        pin()
    head = (
        f"POST {EVALUATION} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {bench.TOKEN}\r\nContent-Length: "
    )
    sent = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in asked]
    link: Any = socket.create_connection(("127.0.0.1", at.port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        link = context.wrap_socket(link, server_hostname="localhost")
    try:
        return timed(lambda one: ask_http(link, one), sent, seconds)
    finally:
        link.close()
        os.sched_setaffinity(0, before)


def ask_http(link: socket.socket, sent: bytes) -> None:
    link.sendall(sent)
    data = link.recv(65_536)
    while data.find(b"\r\n\r\n") < 0:
        data += link.recv(65_536)
    end = data.index(b"\r\n\r\n") + 4
    at = data.index(b"Content-Length: ") + 16
    size = end + int(data[at : data.index(b"\r", at)])
    while len(data) < size:
        data += link.recv(65_536)
    assert data.startswith(b"HTTP/1.1 200"), data[:200]


def unix_connection(at: Served, asked: list[bytes], seconds: float) -> dict[str, float]:
    """The same through the Unix socket."""
    before = os.sched_getaffinity(0)
    if (pin := pinned(1)) is not None:
        pin()
    sent = []
    for number, body in enumerate(asked):
        frame = b'{"v":1,"op":"evaluation","token":"%b","id":%d,"body":%b}' % (
            bench.TOKEN.encode(), number, body,
        )  # fmt: skip
        sent.append(len(frame).to_bytes(4, "big") + frame)

    def ask(one: bytes) -> None:
        link.sendall(one)
        data = link.recv(65_536)
        size = 4 + int.from_bytes(data[:4], "big")
        while len(data) < size:
            data += link.recv(65_536)
        assert b'"status":200' in data[:60], data[:200]

    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(at.folder / "decide.sock"))
        try:
            return timed(ask, sent, seconds)
        finally:
            os.sched_setaffinity(0, before)


def timed(ask: Callable[[Any], object], asked: list[Any], seconds: float) -> dict[str, float]:
    """Median and 99th percentile, in microseconds."""
    clock, took = time.perf_counter, []
    for one in asked:
        ask(one)  # warm
    ends = clock() + seconds
    while clock() < ends:
        for one in asked:
            began = clock()
            ask(one)
            took.append(clock() - began)
    took.sort()
    return {
        "p50": took[len(took) // 2] * 1e6,
        "p99": took[int(len(took) * 0.99)] * 1e6,
        "requests": len(took),
    }


def disk(directory: Path, seconds: float) -> dict[str, float]:
    """What one commit costs here, of about the bytes that a decision's entry has."""
    path = directory / "disk"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:

        def commit(_: object) -> None:
            os.write(fd, bytes(512))
            os.fdatasync(fd)

        return timed(commit, [None] * 50, seconds)
    finally:
        os.close(fd)
        path.unlink()


def alone(kind: str) -> dict[str, float]:
    """The decision, and making its entry, in this process: the best of ten passes, each."""
    node, caller = bench.BenchNode(kind, POLICIES, bench.NoLog()), Caller(bench.SERVICE, "https")
    listed = [bench.question(kind, n, r) for n, r in enumerate(bench.requests())]
    asked = [Asked((one,), "bench") for one in listed]
    batches = [Asked(tuple(listed[at : at + BATCH]), "b") for at in range(0, len(listed), BATCH)]
    rulings = [node.decide(one, _AT) for one in asked]

    def best(work: Callable[[], object]) -> float:
        took = []
        for _ in range(10):
            began = time.process_time()
            work()
            took.append(time.process_time() - began)
        return min(took) / len(listed) * 1e6

    def record() -> None:
        for one, ruled in zip(asked, rulings, strict=True):
            node.entries(one, ruled, caller)

    return {
        "decide": best(lambda: [node.decide(one, _AT) for one in asked]),
        "decide in a batch": best(lambda: [node.decide(batch, _AT) for batch in batches]),
        "entry": best(record),
        "allowed": sum(ruling.allowed for (ruling,) in rulings),
    }


_AT = 1_790_000_000_000


def beside(binary: str | None, seconds: float) -> dict[str, Any] | None:
    """Cerbos: the same policies and requests, over HTTP on one connection and from ``wrk``."""
    found = engines.cerbos_binary(binary)
    if found is None:
        return None
    asked = bench.requests()
    with engines.cerbos(found, family.rules(POLICIES), asked) as calls:
        if calls is None:
            return None
        pid = server_of(found)
        if (pin := pinned(0)) is not None:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {min(os.sched_getaffinity(0))})
        allowed = [call()[0] for call in calls]
        before = os.sched_getaffinity(0)
        if pin is not None:
            os.sched_setaffinity(0, {max(before)})
        one = timed(lambda call: call(), calls, seconds)
        os.sched_setaffinity(0, before)
        with tempfile.TemporaryDirectory() as folder:
            at = Served(39592, (pid,), Path(folder))
            texts = [cerbos_body(request) for request in asked]
            many = wrk(at, texts, "/api/check/resources", 64, seconds)
    return {"allowed": sum(allowed), "one": one, "64": many, "answers": allowed}


def server_of(binary: str) -> int:
    """The process that was started last from the binary."""
    found = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _program(entry) == os.path.realpath(binary)
    ]
    return max(found)


def _program(entry: Path) -> str:
    try:
        return os.path.realpath(entry / "exe")
    except OSError:
        return ""


def cerbos_body(request: family.Request) -> bytes:
    """A request as Cerbos takes it."""
    return json.dumps(
        {
            "principal": {
                "id": request.person.id,
                "roles": request.roles,
                "attr": {"purposes": request.purposes, "departments": request.departments},
            },
            "resources": [
                {
                    "actions": [request.action.id],
                    "resource": {"kind": "record", "id": "asked", "attr": request.attributes},
                }
            ],
        }
    ).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cerbos", help="the binary, if it is not in node_modules")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    chosen = parser.parse_args()
    seconds = 1.0 if chosen.quick else 4.0
    out: dict[str, Any] = {"load": os.getloadavg(), "disk": disk(chosen.directory, seconds / 2)}
    for kind in ("records", "plain"):
        out[f"alone {kind}"] = alone(kind)
    where = chosen.directory
    for kind, durability, tls in (
        ("records", "none", False),
        ("records", "fsync", False),
        ("records", "fsync", True),
        ("plain", "none", False),
        ("plain", "append", False),
        ("plain", "fsync", False),
    ):
        with served(kind, durability, where, tls=tls) as at:
            name = f"{kind} {durability}{' tls' if tls else ''}"
            out[name] = measured(at, kind, seconds, tls=tls)
        print(".", end="", file=sys.stderr, flush=True)
    with writer(where) as log, served("records", "fsync", where, log=log) as at:
        out["records fsync, apart"] = measured(at, "records", seconds, tls=False)
    out["cerbos"] = beside(chosen.cerbos, seconds)
    out["load after"] = os.getloadavg()
    if chosen.json:
        print(json.dumps(out, indent=1))
    else:
        show(out)


def measured(at: Served, kind: str, seconds: float, *, tls: bool) -> dict[str, Any]:
    """All loads of one server."""
    single, batch = bodies(kind), bodies(kind, BATCH)
    scheme = "https" if tls else "http"
    context = None
    if tls:
        context = ssl.create_default_context(cafile=str(at.folder / "ca.pem"))
    found: dict[str, Any] = {"one": one_connection(at, single, seconds, context=context)}
    if not tls:
        found["unix"] = unix_connection(at, single, seconds / 2)
    for connections in (1, 16, 64):
        found[str(connections)] = wrk(at, single, EVALUATION, connections, seconds, scheme)
    found["batch"] = wrk(at, batch, EVALUATIONS, 4, seconds, scheme)
    found["list"] = wrk(at, lists(kind), EVALUATIONS, 4, seconds, scheme)
    return found


def show(out: dict[str, Any]) -> None:
    """A table to read."""
    print(f"\nload {out['load'][0]:.1f} before, {out['load after'][0]:.1f} after")
    print(f"disk alone, fdatasync: {out['disk']['p50']:.0f} / {out['disk']['p99']:.0f} µs")
    for kind in ("records", "plain"):
        one = out[f"alone {kind}"]
        print(
            f"{kind}: decide {one['decide']:.1f} µs (in a batch {one['decide in a batch']:.1f}), "
            f"entry {one['entry']:.1f} µs, {one['allowed']} of {bench.REQUESTS} allowed"
        )
    print(
        f"\n{'':22}{'1 connection, µs':>20}{'unix, µs':>18}{'64: a second':>14}{'per core':>10}"
        f"{'p99, ms':>9}{'batch: per core':>17}{'a list: per core':>18}"
    )
    for name, row in out.items():
        if not isinstance(row, dict) or "64" not in row:
            continue
        one, many = row["one"], row["64"]
        line = f"{name:22}{one['p50']:>11,.0f} / {one['p99']:>6,.0f}"
        unix = row.get("unix")
        line += f"{unix['p50']:>9,.0f} / {unix['p99']:>6,.0f}" if unix else " " * 18
        line += f"{many['rate']:>14,.0f}{1e6 / many['cpu']:>10,.0f}{many['p99'] / 1000:>9.1f}"
        if "batch" in row:
            batch, listed = (1e6 / row[name]["cpu"] * BATCH for name in ("batch", "list"))
            line += f"{batch:>17,.0f}{listed:>18,.0f}"
        print(line)
    cerbos = out["cerbos"]
    if cerbos is None:
        print("\ncerbos: not here (npm install @cerbos/cerbos-linux-x64)")
        return
    ours, one = out["plain fsync"], cerbos["one"]
    print(
        f"\nthe same requests, ours with its entry on disk : Cerbos without a log of decisions\n"
        f"  one connection, median  {ours['one']['p50']:,.0f} : {one['p50']:,.0f} µs "
        f"= 1 : {one['p50'] / ours['one']['p50']:.1f}\n"
        f"  processor time each     {ours['64']['cpu']:,.0f} : {cerbos['64']['cpu']:,.0f} µs "
        f"= 1 : {cerbos['64']['cpu'] / ours['64']['cpu']:.1f}\n"
        f"  allowed                 {out['alone plain']['allowed']} : {cerbos['allowed']} "
        "(to Cerbos a denial of one role leaves what another role gives)"
    )


if __name__ == "__main__":
    main()
