"""How fast the audit log commits: events/s and latency of waiters, beside raw fdatasync.

    python benchmarks/log.py [--seconds 3] [--directory DIR]

In this process, and in the writer's process by its socket, on the medium and before it. The disk
decides: the first lines are what it does alone, in the same directory, in the same run, appending to a
file and writing into room that was made ahead.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from chartgate.adapters.audit_log import AuditLog
from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_link import LogLink
from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.log_verify import verify
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.signing import load_or_create_signer
from chartgate.adapters.state import State
from chartgate.model.event import Evaluation, EvaluationItem, encode

EVENT = b'{"kind":"decision","at":"2026-01-01T00:00:00.000000Z"' + b"x" * 386 + b"}"


ASKED = encode(
    Evaluation(
        at="2026-01-01T00:00:00.000000Z",
        node="bench",
        service="s_0123456789abcdef",
        channel="https",
        request="0123456789abcdef",
        policy_set="0" * 64,
        data_map="0" * 64,
        items=(
            EvaluationItem(action="view", resource_type="Record", allowed=False, person="p_01"),
        ),
    )
)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] * 1000


def raw(directory: Path, size: int, seconds: float, *, room: int = 0) -> list[float]:
    """Write and sync, nothing else."""
    path, took = directory / "raw", []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(fd, bytes(room))
    os.fsync(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        if room and os.lseek(fd, 0, os.SEEK_CUR) + size > room:
            os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"x" * size)
        os.fdatasync(fd)
        took.append(time.perf_counter() - began)
    os.close(fd)
    path.unlink()
    return took


async def waiters(
    log: AuditLog, count: int, seconds: float, entry: bytes, *, durable: bool = True
) -> list[float]:
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        while (began := time.perf_counter()) < end:
            await log.append([entry], durable=durable)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(one() for _ in range(count)))
    return took


async def local(directory: Path, seconds: float) -> None:
    signer = load_or_create_signer(directory / "log.key", "bench.example/audit")
    writer = LogWriter(LogFiles.open(directory / "log", signer))
    await waiters(writer, 1, 0.2, EVENT)
    for count in (1, 16, 256):
        began = time.perf_counter()
        took = await waiters(writer, count, seconds, EVENT)
        show(f"here, {count} waiters", took, time.perf_counter() - began)
    await writer.close()
    began = time.perf_counter()
    size = verify(directory / "log", signer.vkey, None).size
    spent = time.perf_counter() - began
    print(f"verify: {size} entries of {len(EVENT)} B in {spent:.2f} s ({size / spent:,.0f}/s)")
    began = time.perf_counter()
    LogFiles.open(directory / "log", signer).close()
    print(f"open after an orderly close: {(time.perf_counter() - began) * 1000:.0f} ms")


async def remote(directory: Path, seconds: float) -> None:
    state = State(directory / "state")
    state.create()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "chartgate.adapters.log_service", "--state", str(state.root)),
        *("--node", "bench", "--origin", "bench.example/audit"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        async with await RemoteLog.open(state.log_socket) as log:
            await waiters(log, 1, 0.2, ASKED)
            for durable in (True, False):
                for count in (1, 16, 64):
                    began = time.perf_counter()
                    took = await waiters(log, count, seconds, ASKED, durable=durable)
                    how = "" if durable else ", append"
                    show(f"remote{how}, {count} waiters", took, time.perf_counter() - began)
        with LogLink(state.log_socket) as link:
            took, end = [], time.perf_counter() + seconds
            while (began := time.perf_counter()) < end:
                link.append([ASKED])
                took.append(time.perf_counter() - began)
            show("remote, 1 thread", took, seconds)
    finally:
        process.terminate()
        await process.wait()


async def run(directory: Path, seconds: float) -> None:
    print(f"{'':24}{'events/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    for size in (512, 65536):
        show(f"raw append {size} B", raw(directory, size, seconds / 3), seconds / 3)
    took = raw(directory, 700, seconds / 3, room=4 << 20)
    show("raw overwrite 700 B", took, seconds / 3)
    await local(directory, seconds)
    took = raw(directory, 700, seconds / 3, room=4 << 20)
    show("raw overwrite 700 B", took, seconds / 3)
    await remote(directory, seconds)


def show(name: str, took: list[float], seconds: float) -> None:
    p50, p99 = percentile(took, 0.5), percentile(took, 0.99)
    rate = len(took) / seconds
    print(f"{name:24}{rate:>10,.0f}{p50:>9.3f}{p99:>9.3f}{max(took) * 1000:>9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--directory", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        uvloop.run(run(Path(directory), given.seconds))


if __name__ == "__main__":
    main()
