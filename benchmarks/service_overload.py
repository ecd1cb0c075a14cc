"""What happens when more is asked than can be answered: an open loop, from half to three times capacity.

    python benchmarks/service_overload.py [--quick] [--json] [--plot docs/img/overload.svg]

Requests are sent when they are due, whether or not earlier ones were answered, as people do who do not
know of each other; latency counts from when a request was due. Capacity is measured first, with 64
connections that wait for their answers. Server and log on core 0, load from core 1.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import service
import service_node as bench
import uvloop

SHARES = (0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
CONNECTIONS = 128
_STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
_ROOM = 16


class Link(asyncio.Protocol):
    """One connection: what is due is written, answers are counted in order."""

    def __init__(self, took: list[float], refused: list[float]) -> None:
        self.took, self.refused = took, refused
        self.due: deque[float] = deque()
        self.rest = b""
        self.is_lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    def ask(self, sent: bytes, due: float) -> None:
        self.due.append(due)
        self.transport.write(sent)

    def data_received(self, data: bytes) -> None:
        now, data = time.perf_counter(), self.rest + data
        end = 0
        for found in _STATUS.finditer(data):
            end = found.end()
            took = now - self.due.popleft()
            (self.took if found[1] == b"200" else self.refused).append(took)
        self.rest = data[max(end, len(data) - _ROOM) :]


async def offered(port: int, sent: list[bytes], rate: float, seconds: float) -> dict[str, float]:
    """So many a second, for so long."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    refused: list[float] = []
    links: list[Link] = []
    for _ in range(CONNECTIONS):
        _, link = await loop.create_connection(lambda: Link(took, refused), "127.0.0.1", port)
        links.append(link)
    before = numbers(port)
    began = time.perf_counter()
    total, done = int(rate * seconds), 0
    late = 0.0
    while done < total:
        now = time.perf_counter()
        late = max(late, now - (began + done / rate))
        until = min(total, int((now - began) * rate) + 1)
        while done < until:
            links[done % CONNECTIONS].ask(sent[done % len(sent)], began + done / rate)
            done += 1
        await asyncio.sleep(0.0005)
    sent_for = time.perf_counter() - began
    ends = time.perf_counter() + 5
    while any(link.due for link in links) and time.perf_counter() < ends:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    unanswered = sum(len(link.due) for link in links)
    for link in links:
        link.transport.close()
    inside = between(before, numbers(port))
    took.sort()
    refused.sort()
    return {
        "offered": done / sent_for,
        "answered": len(took) / sent_for,
        "refused": len(refused) / sent_for,
        "unanswered": unanswered,
        "p50": _at(took, 0.5),
        "p99": _at(took, 0.99),
        "refused p99": _at(refused, 0.99),
        "p99 inside": inside,
        "sender late by": late * 1000,
    }


def numbers(port: int) -> dict[float, int]:
    """How many decisions took at most so many seconds, as the server itself counts."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(r'stage_seconds_bucket\{[^}]*stage="total",le="([^"]+)"\} (\d+)', text)
    return {float(le.replace("+Inf", "inf")): int(count) for le, count in found}


def between(before: dict[float, int], after: dict[float, int]) -> float:
    """Bound of the 99th percentile of what came between, in milliseconds."""
    counts = {le: count - before[le] for le, count in after.items()}
    every = max(counts.values())
    return min(le for le, count in counts.items() if count >= 0.99 * every) * 1000


def _at(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(len(times) * share))] * 1000 if times else 0.0


def requests(kind: str) -> list[bytes]:
    """As they go over the wire."""
    head = (
        f"POST {service.EVALUATION} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {bench.TOKEN}\r\nContent-Length: "
    )
    return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in service.bodies(kind)]


def run(directory: Path, seconds: float) -> dict[str, Any]:
    """Capacity, then each share of it."""
    with service.served("records", "fsync", directory) as at:
        asked = service.bodies("records")
        service.wrk(at, asked, service.EVALUATION, 64, seconds / 2)
        capacity = service.wrk(at, asked, service.EVALUATION, 64, seconds)["rate"]
        if (pin := service.pinned(1)) is not None:
            pin()
        sent, found = requests("records"), []
        for share in SHARES:
            row = uvloop.run(offered(at.port, sent, share * capacity, seconds))
            found.append({"share": share, **row})
            print(".", end="", file=sys.stderr, flush=True)
    return {"capacity": capacity, "load": os.getloadavg()[0], "rows": found}


# --- the plot --------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, RIGHT, TOP = 760, 490, 70, 24, 84
PANE = 140
INK, FAINT, GOOD, BAD, LATE = "#1f2933", "#d5dbe1", "#0b7285", "#c2410c", "#5b3fa0"


def plot(out: dict[str, Any]) -> str:
    """Two panes over one axis: what becomes of requests, and how long the answered ones took."""
    rows, capacity = out["rows"], out["capacity"]
    most = max(row["offered"] for row in rows) * 1.05
    slow = max(max(row["p99"] for row in rows) * 1.15, 1.0)
    upper, lower = TOP, TOP + PANE + 78

    def across(row: dict[str, float]) -> float:
        return LEFT + (row["share"] - 0.5) / 2.5 * (WIDTH - LEFT - RIGHT)

    def line(key: str, top: int, full: float, ink: str) -> str:
        points = [(across(row), top + PANE * (1 - row[key] / full)) for row in rows]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{ink}"/>' for x, y in points)
        return f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="2"/>{dots}'

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}" role="img">'
        ),
        "<title>Decision service under overload</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        (
            f'<text x="{LEFT}" y="22" font-size="15" font-weight="600">Asked for more than it can '
            "answer, it refuses the rest at once</text>"
        ),
        (
            f'<text x="{LEFT}" y="40" fill="#52606d">one worker on one core, '
            f"43 policies, every decision on disk; capacity {capacity:,.0f} a second</text>"
        ),
    ]
    for top, full, words in ((upper, most, "requests a second"), (lower, slow, "milliseconds")):
        parts.append(_grid(top, full, words, rows, across))
    parts += [
        line("offered", upper, most, "#9aa5b1"),
        line("answered", upper, most, GOOD),
        line("refused", upper, most, BAD),
        line("p99", lower, slow, LATE),
        line("p50", lower, slow, GOOD),
        _legend(upper - 12, (("offered", "#9aa5b1"), ("decided", GOOD), ("refused, 503", BAD))),
        _legend(lower - 12, (("99th percentile of the decided", LATE), ("median", GOOD))),
        (
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">offered '
            "load, times capacity</text></svg>"
        ),
    ]
    return "\n".join(parts) + "\n"


def _grid(top: int, full: float, words: str, rows: list[dict[str, float]], across: Any) -> str:
    step = _round_step(full / 5)
    parts = [
        (
            f'<text x="{LEFT - 58}" y="{top + PANE / 2:.0f}" transform="rotate(-90 {LEFT - 58} '
            f'{top + PANE / 2:.0f})" text-anchor="middle">{words}</text>'
        )
    ]
    value = 0.0
    while value <= full:
        y = top + PANE * (1 - value / full)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{FAINT}"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,g}</text>'
        )
        value += step
    parts += [
        f'<text x="{across(row):.1f}" y="{top + PANE + 18}" text-anchor="middle">'
        f"{row['share']:g}×</text>"
        for row in rows
    ]
    return "".join(parts)


def _round_step(about: float) -> float:
    power = 10.0 ** len(str(int(about))) / 10 if about >= 1 else 0.1
    return next(power * n for n in (1, 2, 5, 10) if power * n >= about)


def _legend(y: int, entries: tuple[tuple[str, str], ...]) -> str:
    parts, x = [], WIDTH - RIGHT - sum(len(name) * 6.6 + 34 for name, _ in entries)
    for name, ink in entries:
        parts.append(
            f'<rect x="{x:.0f}" y="{y - 9}" width="12" height="4" y2="0" fill="{ink}"/>'
            f'<text x="{x + 17:.0f}" y="{y - 3}">{name}</text>'
        )
        x += len(name) * 6.6 + 34
    return "".join(parts).replace(' y2="0"', "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    chosen = parser.parse_args()
    out = run(chosen.directory, 1.5 if chosen.quick else 5.0)
    if chosen.plot is not None:
        chosen.plot.parent.mkdir(parents=True, exist_ok=True)
        chosen.plot.write_text(plot(out), encoding="utf-8")
    if chosen.json:
        print(json.dumps(out, indent=1))
        return
    print(f"\ncapacity {out['capacity']:,.0f} a second; load {out['load']:.1f}")
    print(
        f"{'':>6}{'offered':>10}{'decided':>10}{'refused':>10}{'p50 ms':>9}{'p99 ms':>9}{'inside':>9}{'sender late':>13}"
    )
    for row in out["rows"]:
        print(
            f"{row['share']:>5}×{row['offered']:>10,.0f}{row['answered']:>10,.0f}"
            f"{row['refused']:>10,.0f}{row['p50']:>9.1f}{row['p99']:>9.1f}{row['p99 inside']:>7.0f}≥"
            f"{row['sender late by']:>12.0f}"
            + (f"  {row['unanswered']:.0f} unanswered" if row["unanswered"] else "")
        )


if __name__ == "__main__":
    main()
