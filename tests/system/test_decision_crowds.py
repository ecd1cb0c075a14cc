"""Crowds at the HTTPS door: services beside a greedy one, handshakes by the dozen, what is measured."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import uvloop

from chartgate.adapters.decision_doors import Doors, Opening
from chartgate.adapters.decision_limits import DEFAULT, Limits
from chartgate.adapters.decision_memory import MemoryNode, anyone
from chartgate.adapters.decision_tls import CERTIFICATE, KEY, Tls, own_certificate
from chartgate.app.question import Question
from chartgate.app.ruling import Ruling
from chartgate.model.service import Service

pytestmark = [pytest.mark.system, pytest.mark.timeout(30)]

_BODY = json.dumps(
    {
        "subject": {"type": "User", "id": "alice"},
        "action": {"name": "view"},
        "resource": {"type": "Record", "id": "1"},
    }
).encode()


RUN = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
"""Workers run on uvloop; an application's own loop may be either."""
Run = Callable[[Coroutine[Any, Any, None]], None]


def slowly(question: Question, service: Service) -> Ruling:
    """Half a millisecond of work: this worker can do two thousand a second."""
    until = perf_counter() + 0.0005
    while perf_counter() < until:
        pass
    return Ruling(allowed=True)


@asynccontextmanager
async def served(tls: Tls | None = None, limits: Limits = DEFAULT) -> AsyncIterator[Doors]:
    node = MemoryNode(slowly, {name: anyone(name) for name in ("greedy", "polite")})
    opening = Opening(plain=tls is None, tls=tls, limits=limits)
    doors = Doors(node, opening, pager_key=bytes(32))
    await doors.open()
    try:
        yield doors
    finally:
        await doors.close()


def asked(token: str) -> bytes:
    head = (
        "POST /access/v1/evaluation HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    )
    return head.encode() + _BODY


async def answered(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    size = next(
        int(line.partition(":")[2])
        for line in head.split("\r\n")
        if line.lower().startswith("content-length")
    )
    await reader.readexactly(size)
    return int(head.split()[1])


@asynccontextmanager
async def pressed(doors: Doors, connections: int) -> AsyncIterator[list[int]]:
    """A service that has thirty requests waiting on each of its connections, at any time."""
    statuses: list[int] = []

    async def press() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", doors.port)
        try:
            writer.write(asked("greedy") * 30)
            while True:
                statuses.append(await answered(reader))
                writer.write(asked("greedy"))
        finally:
            writer.close()

    tasks = [asyncio.create_task(press()) for _ in range(connections)]
    try:
        yield statuses
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@RUN
def test_a_polite_service_is_answered_beside_a_greedy_one(run: Run) -> None:
    run(_a_polite_service_is_answered_beside_a_greedy_one())


async def _a_polite_service_is_answered_beside_a_greedy_one() -> None:
    async with served() as doors, pressed(doors, 16) as greedy:
        reader, writer = await asyncio.open_connection("127.0.0.1", doors.port)
        polite = []
        for _ in range(40):
            writer.write(asked("polite"))
            polite.append(await answered(reader))
            await asyncio.sleep(0.005)
        writer.close()
    assert polite == [200] * 40
    assert greedy.count(503) > 40
    assert greedy.count(200) > 40


def trusted(tmp_path: Path) -> tuple[Tls, ssl.SSLContext]:
    authority = own_certificate(tmp_path, datetime.now(UTC))
    trust = ssl.create_default_context(cafile=str(authority))
    return Tls(tmp_path / CERTIFICATE, tmp_path / KEY), trust


@RUN
def test_callers_that_all_come_at_once_shake_hands_a_few_at_a_time(
    run: Run, tmp_path: Path
) -> None:
    run(_callers_that_all_come_at_once_shake_hands_a_few_at_a_time(tmp_path))


async def _callers_that_all_come_at_once_shake_hands_a_few_at_a_time(tmp_path: Path) -> None:
    tls, trust = trusted(tmp_path)
    most = 0

    async def call(doors: Doors) -> int:
        nonlocal most
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", doors.port, ssl=trust, server_hostname="localhost"
        )
        port = doors._tls_port
        assert port is not None
        most = max(most, port.under_way)
        writer.write(asked("polite"))
        status = await answered(reader)
        writer.close()
        return status

    limits = replace(DEFAULT, handshakes=8, queue_seconds=1.0)
    async with served(tls, limits) as doors:
        assert await asyncio.gather(*(call(doors) for _ in range(60))) == [200] * 60
        assert most <= 4  # half of them: they all come from one address


@RUN
def test_handshakes_that_are_begun_and_left_end_and_do_not_keep_callers_out(
    run: Run, tmp_path: Path
) -> None:
    run(_handshakes_that_are_begun_and_left_end_and_do_not_keep_callers_out(tmp_path))


async def _handshakes_that_are_begun_and_left_end_and_do_not_keep_callers_out(
    tmp_path: Path,
) -> None:
    tls, trust = trusted(tmp_path)
    limits = replace(DEFAULT, handshakes=4, handshakes_waiting=8, handshake_seconds=0.4)
    async with served(tls, limits) as doors:
        idle = [await asyncio.open_connection("127.0.0.1", doors.port) for _ in range(12)]
        await asyncio.sleep(0.05)
        port = doors._tls_port
        assert port is not None
        assert port.under_way == 0  # a place is for who has greeted
        assert doors.metrics.counters["refused_connections"] == 4  # the oldest give way
        for _, writer in idle:  # each is let go, by whichever limit
            with contextlib.suppress(OSError):
                await asyncio.wait_for(_.read(), 5)
            writer.close()
        assert port.under_way == 0
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", doors.port, ssl=trust, server_hostname="localhost"
        )
        writer.write(asked("polite"))
        assert await answered(reader) == 200
        writer.close()
