"""The engine in the application's own process: the service's answers, without the service."""

import asyncio
import os
import random
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from chartgate.adapters.keys import KeyStore, TokenKeys
from chartgate.adapters.log_admission import AppDoor
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.log_service import LogService
from chartgate.adapters.service_accounts import digest_of
from chartgate.adapters.state import State
from chartgate.app.evaluation_events import CachedTokens
from chartgate.app.tokens import PATIENT, PatientTokens
from chartgate.model.event import Evaluation, decode
from chartgate.sdk import AsyncChartgate, Chartgate, Decision, Record
from chartgate.sdk.beside import beside
from chartgate.sdk.embedded import AsyncEmbedded, Embedded
from chartgate.sdk.errors import Misused, QuestionRefused

pytestmark = pytest.mark.system

QUESTIONS = 10_000
BATCH = 500
PEOPLE = (
    "mwelby", "nadams", "rpatel", "bcoder", "pofficer", "ddba", "bclinician", "aassist", "fworker",
    "pharma", "contractor", "oncdoc", "annself", "annmother", "hrecords", "researcher", "qanalyst",
    "labtech", "radiologist", "nobody",
)  # fmt: skip
CLINICIANS = ("mwelby", "nadams", "rpatel", "oncdoc", "bclinician", "pharma", "annself")
ACTIONS = ("view", "view_summary", "view_masked", "create", "update", "share", "export", "delete")
CATEGORIES = (
    "demographics", "gov_ids", "record_ids", "insurance", "scheduling", "clinical_summary", "notes",
    "labs", "imaging", "medications", "vitals_nursing", "billing", "behavioral_health",
    "psychotherapy_notes", "sud_part2", "repro_sti_hiv", "genetic", "technical", "no such",
)  # fmt: skip
COLUMNS = ("patient.ssn", "lab_result.value", "clinical_note.note_text", "patient.nowhere")
PURPOSES = ("TREAT", "ETREAT", "HPAYMT", "PATADMIN", "HRESCH", "HOPERAT", "no such")


@pytest.fixture(scope="module")
def embedded(service: Any) -> Iterator[Embedded]:
    gate = Embedded(**beside(service.state, over="embedded"), name="blocking", timeout=10)
    try:
        yield gate
    finally:
        gate.close()


def asked(rng: random.Random, patients: tuple[str, ...]) -> tuple[Any, ...]:
    """One random question: mostly a sensible one, now and then none at all."""
    odd = rng.random() < 0.2
    record: dict[str, Any] = {}
    if not odd or rng.random() < 0.7:
        record["patient"] = "no such patient" if odd else rng.choice(patients)
    known = CATEGORIES if odd else CATEGORIES[:-2]
    kind = rng.random()
    if kind < 0.5:
        record["category"] = rng.choice(known)
    elif kind < 0.7:
        record["categories"] = rng.sample(known, rng.randint(1, 4))
    elif kind < 0.85:
        record["fields"] = rng.sample(COLUMNS, rng.randint(1, 3))
    elif kind < 0.95 or not odd:
        record["fields"] = {"a": rng.choice(known), "b": rng.choice(known)}
    if rng.random() < 0.2:
        record["department"] = 7 if odd else rng.choice(("cardiology", "psychiatry"))
    if rng.random() < 0.1:
        record["labels"] = rng.sample(known, 1)
    context: dict[str, Any] = {}
    if odd or rng.random() < 0.2:
        context["purpose"] = rng.choice(PURPOSES)
    if rng.random() < 0.3:
        context["acr"] = "two" if odd else rng.choice((1, 2, 3))
    if rng.random() < 0.3:
        context["ip"] = "nowhere" if odd else "10.0.0.1"
    if rng.random() < 0.3:
        context["recipient"] = "Dr. Elsewhere"
    who = rng.choice(PEOPLE if rng.random() < 0.3 else CLINICIANS)
    what = rng.choice(ACTIONS if odd or rng.random() < 0.3 else ACTIONS[:5])
    resource = {"type": "Record", "id": "asked", "properties": record}
    if odd and rng.random() < 0.05:
        resource = {"type": "AuditLog", "id": "log"}
    return who, what, resource, context


def alike(decision: Decision) -> Decision:
    """All of it but where it is on record."""
    return replace(decision, audit_index=None)


def test_embedded_and_remote_answer_ten_thousand_questions_alike(
    embedded: Embedded, service: Any
) -> None:
    rng = random.Random(4)
    patients = (*service.cardiology * 4, *service.others)
    questions = [asked(rng, patients) for _ in range(QUESTIONS)]
    outcomes: dict[str, int] = {}
    with Chartgate(**beside(service.state, over="unix"), timeout=10) as remote:
        for start in range(0, QUESTIONS, BATCH):
            part = questions[start : start + BATCH]
            here, there = embedded.decide_many(part), remote.decide_many(part)
            assert len(here) == len(there) == len(part)
            for question, mine, theirs in zip(part, here, there, strict=True):
                assert alike(mine) == alike(theirs), question
                code = "allowed" if mine.allowed else mine.reason.code if mine.reason else "?"
                outcomes[code] = outcomes.get(code, 0) + 1
    assert outcomes["allowed"] > 300
    assert outcomes["no_permit"] > 300
    assert {"not_allowed", "purpose_refused", "wrong_type", "out_of_scope"} <= outcomes.keys()
    assert "unavailable" not in outcomes


def test_one_by_one_they_are_alike_too(embedded: Embedded, service: Any) -> None:
    rng = random.Random(5)
    with Chartgate(**beside(service.state), timeout=10) as remote:
        for _ in range(100):
            question = asked(rng, service.cardiology)
            assert alike(embedded.decide(*question)) == alike(remote.decide(*question)), question


def test_the_searches_find_the_same(embedded: Embedded, service: Any) -> None:
    about = Record(patient=service.cardiology[0], category="labs")
    with Chartgate(**beside(service.state, over="unix"), timeout=10) as remote:
        who = [one.id for one in embedded.search_subjects("view", about)]
        assert "nadams" in who
        assert who == [one.id for one in remote.search_subjects("view", about)]
        assert list(embedded.search_actions("nadams", about)) == list(
            remote.search_actions("nadams", about)
        )


async def test_a_decision_is_on_record_before_it_is_told(service: Any) -> None:
    key = service.cardiology[0]
    arguments = beside(service.state, over="embedded")
    async with AsyncEmbedded(**arguments, name="asynchronous") as gate:
        decision, timing = await gate.decide_timed(
            "nadams", "view", Record(patient=key, category="labs")
        )
        assert decision.audit_index is not None
        events = await asyncio.to_thread(service.gate.events, decision.audit_index)
    event = dict(events)[decision.audit_index]
    assert event.channel == "embedded"
    assert event.node.endswith(f"/app-asynchronous-{os.getpid()}")
    assert event.items[0].patient in service.gate.tokens([key])
    assert timing.decide > 0
    assert timing.record > 0


async def test_an_application_of_another_user_comes_by_its_own_door(
    service: Any, tmp_path: Path
) -> None:
    """It holds no key of the log's tokens: the writer makes them of what it says."""
    state, key = State(tmp_path), service.cardiology[0]
    state.create()
    instance = service.gate.state.instance()
    tokens = PatientTokens(TokenKeys(KeyStore(state.keys_dir), create=True), instance.source)

    async def verify(text: str) -> str | None:
        def found() -> str | None:
            with service.gate.control() as control, control.change() as cursor:
                row = cursor.execute(
                    "SELECT service_uid FROM service_token WHERE digest = %s", [digest_of(text)]
                ).fetchone()
            return None if row is None else str(row[0])

        return await asyncio.to_thread(found)

    door = AppDoor(verify, CachedTokens(tokens))
    arguments = {
        **beside(service.state, over="embedded"),
        "log_socket": state.log_socket,
        "folder": tmp_path / "app",
    }
    (tmp_path / "app").mkdir()
    async with (
        LogService(state, instance.node, instance.origin, door=door),
        AsyncEmbedded(**arguments, name="elsewhere") as gate,
    ):
        decision = await gate.decide("nadams", "view", Record(patient=key, category="labs"))
        assert decision.allowed
        assert decision.audit_index is not None
        entries = dict(LogReader(state.log_dir).entries(decision.audit_index))
    event = decode(entries[decision.audit_index])
    assert isinstance(event, Evaluation)
    assert event.items[0].patient in tokens.all_years(PATIENT, key)


async def test_a_token_that_is_nobodys_decides_nothing(service: Any) -> None:
    arguments = {**beside(service.state, over="embedded"), "token_file": None, "token": "guessed"}
    with pytest.raises(QuestionRefused, match=r"the application is not taken: .*token"):
        await AsyncEmbedded(**arguments).start()


async def test_before_it_is_started_it_is_an_error_to_ask(service: Any) -> None:
    gate = AsyncEmbedded(**beside(service.state, over="embedded"))
    with pytest.raises(Misused, match="not started"):
        await gate.decide("nadams", "view", Record(patient="1", category="labs"))


async def test_what_each_way_costs(service: Any, capsys: pytest.CaptureFixture[str]) -> None:
    about = Record(patient=service.cardiology[0], category="labs")
    told: dict[str, float] = {}

    async def measure(gate: Any) -> float:
        times = []
        for _ in range(30):
            began = perf_counter()
            assert (await gate.decide("nadams", "view", about)).allowed
            times.append(perf_counter() - began)
        return statistics.median(times)

    for over in ("https", "unix"):
        async with AsyncChartgate(**beside(service.state, over=over)) as remote:
            told[over] = await measure(remote)
    async with AsyncEmbedded(**beside(service.state, over="embedded"), name="timed") as gate:
        told["embedded"] = await measure(gate)
        timings = [(await gate.decide_timed("nadams", "view", about))[1] for _ in range(30)]
    told["embedded, deciding"] = statistics.median(one.decide for one in timings)
    told["embedded, recording"] = statistics.median(one.record for one in timings)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name} {s * 1e6:.0f} µs" for name, s in told.items()))
    assert told["embedded, deciding"] < 0.005
