"""Facts of patients from a real source: in one query, at most once, for seconds, or not at all."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from chartgate.adapters.patient_facts import FactsUnavailable, PatientFacts
from chartgate.adapters.patient_record import read_patient

pytestmark = pytest.mark.system


@pytest.fixture
def opened(gate: Any) -> Callable[..., PatientFacts]:
    """Facts of the gate's own source."""

    def make(**more: Any) -> PatientFacts:
        loaded = gate.ready.loaded
        return PatientFacts(
            more.pop("conninfo", gate.ready.instance.legacy),
            loaded.data_map,
            loaded.version.schema,
            **more,
        )

    return make


def patients(gate: Any) -> list[tuple[str, str]]:
    with gate.admin() as raw:
        return [
            (str(key), str(mrn))
            for key, mrn in raw.execute(
                'SELECT patient_id, mrn FROM patient ORDER BY patient_id::text COLLATE "C"'
            ).fetchall()
        ]


def test_many_are_what_each_is_alone(gate: Any, opened: Callable[..., PatientFacts]) -> None:
    loaded = gate.ready.loaded
    listed = patients(gate)[:12]

    async def run() -> dict[str, Any]:
        async with opened() as facts:
            return await facts.get_many([*(key for key, _ in listed), "999999999"])

    found = asyncio.run(run())
    assert found.pop("999999999") is None
    for key, number in listed:
        alone = read_patient(
            gate.ready.instance.legacy, loaded.data_map, loaded.version.schema, number
        )
        assert found[key] == alone


@pytest.mark.parametrize(
    "strange",
    ["0012", " 12", "12 ", "twelve", "9" * 40, "1\0", "\ud800", "{1}", '"', "\\", "x" * 5000, ""],
)
def test_what_is_no_key_is_nobody(
    gate: Any, opened: Callable[..., PatientFacts], strange: str
) -> None:
    key = patients(gate)[0][0]

    async def run() -> dict[str, Any]:
        async with opened() as facts:
            return await facts.get_many([strange, key])

    found = asyncio.run(run())
    assert found[strange] is None
    assert found[key] is not None


def test_a_patient_is_asked_for_once_and_kept_for_seconds(
    gate: Any, opened: Callable[..., PatientFacts]
) -> None:
    key = patients(gate)[0][0]

    async def run() -> None:
        async with opened() as facts:
            asked = []
            rows = facts._rows

            async def counted(text: str, parameters: list[object]) -> list[Any]:
                asked.append(parameters)
                return await rows(text, parameters)

            facts._rows = counted  # type: ignore[method-assign]
            with pytest.raises(KeyError):
                facts.peek(key)
            first = asyncio.create_task(facts.get(key))
            others = [asyncio.create_task(facts.get(key)) for _ in range(5)]
            await asyncio.sleep(0)
            first.cancel()
            found = await asyncio.gather(*others)
            assert len(asked) == 1
            assert all(one is found[0] for one in found)
            assert facts.peek(key) is found[0]
            now = asyncio.get_running_loop().time()
            assert facts.knows(key, now + 4)
            assert not facts.knows(key, now + 5.1)
            await facts.get(key)
            assert len(asked) == 1
            facts.forget()
            await facts.get(key)
            assert len(asked) == 2

    asyncio.run(run())


def test_every_patient_comes_once_in_the_order_of_the_keys(
    gate: Any, opened: Callable[..., PatientFacts]
) -> None:
    expected = [key for key, _ in patients(gate)]
    assert expected == sorted(expected)

    async def run(after: str) -> list[str]:
        async with opened() as facts:
            return [key async for chunk in facts.chunks(after, size=37) for key, _ in chunk]

    assert asyncio.run(run("")) == expected
    assert asyncio.run(run(expected[50])) == expected[51:]


def test_a_source_that_is_not_there_is_a_failure_and_says_no_key(
    opened: Callable[..., PatientFacts], gate: Any
) -> None:
    nowhere = "host=/nowhere dbname=hospital user=nobody"

    async def run() -> None:
        async with opened(conninfo=nowhere) as facts:
            with pytest.raises(FactsUnavailable) as failure:
                await facts.get("4711")
            assert "4711" not in str(failure.value)
            assert not facts.knows("4711")

    asyncio.run(run())


def test_a_connection_that_was_cut_is_opened_again(
    gate: Any, opened: Callable[..., PatientFacts]
) -> None:
    key = patients(gate)[0][0]

    async def run() -> None:
        async with opened() as facts:
            assert await facts.get(key) is not None
            with gate.admin() as raw:
                raw.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'chartgate facts'"
                )
            facts.forget()
            assert await facts.get(key) is not None

    asyncio.run(run())


def test_the_session_only_reads(gate: Any, opened: Callable[..., PatientFacts]) -> None:
    async def run() -> None:
        async with opened() as facts:
            with pytest.raises(FactsUnavailable):
                await facts._rows("CREATE TABLE public.mine (x int)", [])
            [[setting]] = await facts._rows("SHOW default_transaction_read_only", [])
            assert setting == "on"

    asyncio.run(run())
    with gate.admin() as raw, pytest.raises(psycopg.errors.UndefinedTable):
        raw.execute("SELECT 1 FROM public.mine")
