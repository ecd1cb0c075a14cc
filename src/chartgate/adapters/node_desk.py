"""Answering: decide, record, answer, whatever the node was fed by.

The rules kept: an answer exists only once it is in the audit log; what releases PHI is on disk
first, whatever durability is configured; facts about patients are fetched before anything is
decided, and a source that does not answer decides nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

from chartgate.adapters.audit_log import AuditLog
from chartgate.adapters.node_rulings import Ready
from chartgate.adapters.node_state import Turn
from chartgate.adapters.patient_facts import FactsUnavailable
from chartgate.app import node_searching
from chartgate.app.authzen_search import Sought
from chartgate.app.evaluation_events import Tokens
from chartgate.app.node_asked import (
    Answered,
    Asked,
    Caller,
    NodeNotReady,
    Readiness,
    Searched,
    SearchRefused,
)
from chartgate.app.node_deciding import Facts, Stamps, decide, entries, patients_of, releases
from chartgate.app.node_searching import Page
from chartgate.app.patient_record import PatientRecord
from chartgate.app.question import Question
from chartgate.app.ruling import Ruling
from chartgate.app.rulings import Rulings
from chartgate.app.searches import Chunk
from chartgate.errors import LogUnavailable

_NO_FACTS: Final[Facts] = {}
_BREATH_SECONDS: Final = 0.002
_PAGE_SECONDS: Final = 1.0
"""Well before the door gives up a request (``Limits.recording_seconds``)."""
_SPLIT: Final = 256
"""More questions than this are decided with rests for others in between."""


class FactsSource(Protocol):
    """Where facts about patients come from (``PatientFacts``)."""

    def knows(self, key: str, now: float | None = None) -> bool: ...
    def peek(self, key: str, now: float | None = None) -> PatientRecord | None: ...
    async def get_many(self, keys: Sequence[str]) -> dict[str, PatientRecord | None]: ...
    def chunks(
        self, after: str = "", *, size: int = 256
    ) -> AsyncIterator[list[tuple[str, PatientRecord]]]: ...


class AnswerDesk:
    """Answers for one node; ``ready``, ``facts`` and ``epoch`` are what the node has now."""

    def __init__(
        self,
        name: str,
        origin: str,
        log: AuditLog,
        tokens: Tokens,
        turn: Turn,
        *,
        ready: Callable[[], Ready],
        facts: Callable[[], FactsSource | None],
        epoch: Callable[[], int],
        readiness: Callable[[], Readiness],
        is_durable: bool,
    ) -> None:
        self._name: Final = name
        self._origin: Final = origin
        self._log: Final = log
        self._tokens: Final = tokens
        self._turn: Final = turn
        self._ready: Final = ready
        self._facts: Final = facts
        self._epoch: Final = epoch
        self._readiness: Final = readiness
        self._is_durable: Final = is_durable
        self._stamps: Final = Stamps()

    async def answer(self, asked: Asked, caller: Caller) -> Answered:
        """Decide, record, answer. Raises ``NodeNotReady`` or ``LogUnavailable``: nothing is told."""
        source = self._facts()
        facts = _NO_FACTS
        if source is not None:
            keys, clock = patients_of(self._ready().rulings, asked.questions), time.monotonic()
            if len(keys) == 1 and source.knows(keys[0], clock):
                facts = {keys[0]: source.peek(keys[0], clock)}
            elif keys:
                facts = await _fetched(source, keys)
        if not self._turn.is_open:
            await self._turn.wait()
        if source is not self._facts():  # facts by one map are nothing to decide on by another
            return await self.answer(asked, caller)
        self._check_ready()
        ready, epoch, now = self._ready(), self._epoch(), time.time_ns()
        at_ms = now // 1_000_000
        if len(asked.questions) > _SPLIT:
            found: Sequence[Ruling] = await self._many(ready.rulings, asked, caller, facts, at_ms)
            if not self._turn.is_open:
                await self._turn.wait()
            if ready is not self._ready():  # another version came: all of it by the new one
                return await self.answer(asked, caller)
            self._check_ready()
        else:
            found = decide(ready.rulings, asked, caller.service.scope, facts, at_ms)
        made = entries(
            asked,
            found,
            caller,
            at=self._stamps.of(now),
            node=self._name,
            tokens=self._tokens,
            names=ready.names,
        )
        durable = self._is_durable or releases(found)
        # No await between decision and log: whatever changes the version has its place after.
        began = time.perf_counter()
        index = await self._log.append(made, durable=durable)
        took = time.perf_counter() - began
        return Answered(tuple(found), index, self._origin, epoch, took)

    async def search(
        self, sought: Sought, caller: Caller, *, request: str, trace: str = ""
    ) -> Searched:
        """One page, exact, recorded."""
        scope = caller.service.scope
        if not scope.may_search:
            raise SearchRefused("the service's scope does not let it search")
        question = node_searching.question_of(sought.query)
        source = self._facts()
        needs_patients = node_searching.needs_patients(
            self._ready().rulings, sought.query, question
        )
        facts = {} if needs_patients else await self._facts_of((question,))
        await self._turn.wait()
        if source is not self._facts():
            return await self.search(sought, caller, request=request, trace=trace)
        self._check_ready()
        ready, epoch, now = self._ready(), self._epoch(), time.time_ns()
        at_ms, rulings = now // 1_000_000, ready.rulings
        page, began = Page(sought.page.limit), time.perf_counter()
        if needs_patients and source is not None:
            patients = source.chunks(sought.page.after or "")
            found = node_searching.record_chunks(rulings, question, scope, at_ms, patients)
            try:
                async for chunk in found:
                    if page.add(chunk) or _is_late(began, page, chunk):
                        break
                    await asyncio.sleep(0)
            except FactsUnavailable as exc:
                raise NodeNotReady(str(exc)) from exc
            finally:
                await found.aclose()
        else:
            key = rulings.patient_of(question)
            known = None if key is None else facts.get(key)
            for chunk in node_searching.chunks(rulings, sought, question, scope, known, at_ms):
                if page.add(chunk) or _is_late(began, page, chunk):
                    break
                await asyncio.sleep(0)
        await self._turn.wait()
        if ready is not self._ready():  # another version came: all of it by the new one
            return await self.search(sought, caller, request=request, trace=trace)
        self._check_ready()
        made = node_searching.entries(
            rulings,
            sought,
            question,
            page,
            caller,
            at=self._stamps.of(now),
            at_ms=at_ms,
            node=self._name,
            request=request,
            trace=trace,
            tokens=self._tokens,
            names=ready.names,
        )
        index = await self._log.append(made, durable=True)
        return Searched(page.found, index, self._origin, epoch, rulings.hash)

    def _check_ready(self) -> None:
        found = self._readiness()
        if found.is_log_lost:
            raise LogUnavailable("; ".join(found.reasons))
        if found.reasons:
            raise NodeNotReady("; ".join(found.reasons))

    async def _facts_of(self, questions: Sequence[Question]) -> Facts:
        source = self._facts()
        if source is None:
            return _NO_FACTS
        keys = patients_of(self._ready().rulings, questions)
        return await _fetched(source, keys) if keys else _NO_FACTS

    async def _many(
        self, rulings: Rulings, asked: Asked, caller: Caller, facts: Facts, at_ms: int
    ) -> list[Ruling]:
        """As ``decide``, for a batch that would keep others waiting."""
        sitting, last = rulings.sitting(caller.service.scope, at_ms), asked.semantic.last
        found: list[Ruling] = []
        began = time.perf_counter()
        for question in asked.questions:
            key = rulings.patient_of(question)
            ruling = sitting.rule(question, None if key is None else facts.get(key))
            found.append(ruling)
            if ruling.allowed is last:
                break
            if len(found) % 32 == 0 and time.perf_counter() - began > _BREATH_SECONDS:
                await asyncio.sleep(0)
                began = time.perf_counter()
        return found


async def _fetched(source: FactsSource, keys: Sequence[str]) -> Facts:
    try:
        return await source.get_many(keys)
    except FactsUnavailable as exc:
        raise NodeNotReady(str(exc)) from exc


def _is_late(began: float, page: Page, chunk: Chunk) -> bool:
    """A page that finds little must not keep its caller, or others, waiting: it ends where it is."""
    if time.perf_counter() - began < _PAGE_SECONDS:
        return False
    page.end_at(chunk)
    return True
