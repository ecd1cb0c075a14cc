"""How fast the audit log commits: events/s and latency at 1, 16, 256 waiters, beside raw fdatasync.

    python benchmarks/log.py [--seconds 3] [--directory DIR]

The disk decides: the first line is what it does alone, in the same directory, in the same run.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_verify import verify
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.signing import load_or_create_signer

EVENT = b'{"kind":"decision","at":"2026-01-01T00:00:00.000000Z"' + b"x" * 386 + b"}"


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] * 1000


def raw(directory: Path, size: int, seconds: float) -> list[float]:
    """Append and sync, nothing else."""
    path, took = directory / "raw", []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        os.write(fd, bytes(size))
        os.fdatasync(fd)
        took.append(time.perf_counter() - began)
    os.close(fd)
    path.unlink()
    return took


async def waiters(writer: LogWriter, count: int, seconds: float) -> list[float]:
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        while (began := time.perf_counter()) < end:
            await writer.append([EVENT])
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(one() for _ in range(count)))
    return took


async def run(directory: Path, seconds: float) -> None:
    signer = load_or_create_signer(directory / "log.key", "bench.example/audit")
    files = LogFiles.open(directory / "log", signer)
    writer = LogWriter(files)
    print(f"{'':24}{'events/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    for size in (512, 65536):
        took = raw(directory, size, seconds / 3)
        show(f"raw fdatasync {size} B", took, seconds / 3)
    for count in (1, 16, 256):
        began = time.perf_counter()
        took = await waiters(writer, count, seconds)
        show(f"{count} waiters", took, time.perf_counter() - began)
    await writer.close()
    began = time.perf_counter()
    size = verify(directory / "log", signer.vkey, None).size
    took = time.perf_counter() - began
    print(f"verify: {size} entries of {len(EVENT)} B in {took:.2f} s ({size / took:,.0f}/s)")
    began = time.perf_counter()
    LogFiles.open(directory / "log", signer).close()
    print(f"open after an orderly close: {(time.perf_counter() - began) * 1000:.0f} ms")


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
        asyncio.run(run(Path(directory), given.seconds))


if __name__ == "__main__":
    main()
