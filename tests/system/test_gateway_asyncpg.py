"""asyncpg through the gate: prepared statements by name, binary values, portals, pools."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from chartgate.model.event import Decision, Release

pytestmark = pytest.mark.system


@asynccontextmanager
async def session(gate: Any, name: str, **given: Any) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(**where(gate, name), **given)
    try:
        yield connection
    finally:
        await connection.close()


def where(gate: Any, name: str) -> dict[str, Any]:
    return {
        "host": gate.host,
        "port": gate.port,
        "user": name,
        "password": gate.password(name),
        "database": gate.database,
        "ssl": False,
    }


def seen(gate: Any, since: int) -> set[str]:
    return {t for _, e in gate.events(since) if isinstance(e, Release) for t in e.seen}


async def test_a_prepared_statement_is_run_again_with_other_values(gate: Any) -> None:
    since = gate.size
    async with session(gate, "nadams") as nurse:
        prepared = await nurse.prepare("SELECT mrn FROM patient WHERE patient_id = $1")
        assert [a.name for a in prepared.get_attributes()] == ["mrn"]
        assert [p.name for p in prepared.get_parameters()] == ["int8"]
        found = [await prepared.fetchval(key) for key in (1, 2, 1)]
    assert found[0] == found[2] != found[1]
    assert gate.tokens([1, 2]) <= seen(gate, since)
    sought = [e.sought for _, e in gate.events(since) if isinstance(e, Decision) and e.sought]
    assert len(sought) == 3


async def test_a_companion_takes_the_binary_values_of_its_statement(gate: Any) -> None:
    since = gate.size
    async with session(gate, "nadams") as nurse:
        rows = await nurse.fetch(
            "SELECT DISTINCT p.patient_id FROM patient p JOIN encounter e USING (patient_id)"
            " WHERE e.started_at > $1 AND p.patient_id = ANY ($2::bigint[]) AND e.class <> $3",
            datetime(2000, 1, 1),
            list(range(1, 60)),
            "nonsense",
        )
    keys = {row[0] for row in rows}
    assert keys
    assert gate.tokens(keys) <= seen(gate, since)


async def test_a_cursor_reads_in_parts_inside_a_transaction(gate: Any) -> None:
    since = gate.size
    async with session(gate, "nadams") as nurse, nurse.transaction():
        keys = [
            row["patient_id"]
            async for row in nurse.cursor("SELECT patient_id FROM patient", prefetch=7)
        ]
        opened = await nurse.cursor("SELECT patient_id FROM patient")
        part = await opened.fetch(5)
        inside = await nurse.fetchval("SELECT count(*) FROM patient")
        part += await opened.fetch(1_000)
    assert inside == len(keys) == len(part)
    assert gate.tokens(keys) <= seen(gate, since)


async def test_types_come_as_they_are(gate: Any) -> None:
    async with session(gate, "nadams") as nurse:
        row = await nurse.fetchrow(
            "SELECT vital_id, department, taken_at, systolic, temperature FROM vital_sign"
            " WHERE department = 'cardiology' AND temperature IS NOT NULL LIMIT 1"
        )
        echo = await nurse.fetchrow(
            "SELECT $1::numeric, $2::text[], $3::timestamptz, $4::boolean, $5::float8",
            Decimal("1.5"),
            ["a", "b"],
            None,
            True,
            2.5,
        )
    assert [type(value) for value in row] == [int, str, datetime, int, Decimal]
    assert tuple(echo) == (Decimal("1.5"), ["a", "b"], None, True, 2.5)


async def test_many_rows_are_written_with_one_statement(gate: Any) -> None:
    with gate.admin() as admin:
        visit = admin.execute(
            "SELECT e.patient_id, e.encounter_id FROM encounter e WHERE e.department = 'cardiology'"
            " AND NOT EXISTS (SELECT FROM patient_flag f WHERE f.patient_id = e.patient_id) LIMIT 1"
        ).fetchone()
        me = admin.execute("SELECT staff_id FROM staff WHERE username = 'nadams'").fetchone()[0]
        rows = [(991_000 + n, *visit, "cardiology", me, 110 + n) for n in range(600)]
        insert = (
            "INSERT INTO vital_sign (vital_id, patient_id, encounter_id, department, recorded_by,"
            " taken_at, systolic) VALUES ($1, $2, $3, $4, $5, localtimestamp, $6)"
        )
        since = gate.size
        try:
            async with session(gate, "nadams") as nurse:
                await nurse.executemany(insert, rows)
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="policy"):
                    await nurse.executemany(insert, [(992_000, *visit, "oncology", me, 1)])
                assert await nurse.fetchval("SELECT 1") == 1
            count = admin.execute("SELECT count(*) FROM vital_sign WHERE vital_id >= 991000")
            assert count.fetchone() == (600,)
        finally:
            admin.execute("DELETE FROM vital_sign WHERE vital_id >= 991000")
    decisions = [e for _, e in gate.events(since) if isinstance(e, Decision)]
    assert sum(e.action == "insert" and e.allowed for e in decisions) == 601


async def test_a_refusal_inside_a_transaction_rolls_it_back(gate: Any) -> None:
    async with session(gate, "nadams") as nurse:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="delete"):
            async with nurse.transaction():
                await nurse.execute("DELETE FROM patient WHERE patient_id = $1", 1)
        async with nurse.transaction():
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with nurse.transaction():
                    await nurse.fetch("SELECT pg_read_file('x')")
            assert await nurse.fetchval("SELECT 2") == 2


async def test_copy_is_refused_and_the_session_lives_on(gate: Any, tmp_path: Any) -> None:
    async with session(gate, "nadams") as nurse:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="copy"):
            await nurse.copy_from_table("patient", output=tmp_path / "out")
        with pytest.raises(asyncpg.PostgresError):
            await nurse.copy_records_to_table("vital_sign", records=[(1,)], columns=["vital_id"])
        assert await nurse.fetchval("SELECT 1") == 1


async def test_a_purpose_does_not_stay_with_the_next_user_of_a_pool(gate: Any) -> None:
    async with asyncpg.create_pool(**where(gate, "nadams"), min_size=1, max_size=1) as pool:
        async with pool.acquire() as nurse:
            await nurse.execute("SET chartgate.purpose = 'ETREAT'")
            assert await nurse.fetchval("SHOW chartgate.purpose") == "ETREAT"
        async with pool.acquire() as nurse:
            assert await nurse.fetchval("SHOW chartgate.purpose") == "TREAT"


async def test_an_answer_larger_than_every_buffer_reaches_a_slow_reader(gate: Any) -> None:
    query = "SELECT a.patient_id, repeat('x', 500) FROM encounter a, generate_series(1, 100)"
    async with session(gate, "nadams") as nurse, nurse.transaction():
        expected = await nurse.fetchval("SELECT count(*) FROM encounter")
        count = 0
        async for _ in nurse.cursor(query, prefetch=500):
            count += 1
    assert count == 100 * expected
