"""What policies may ask of patients, fetched from the source and kept for a few seconds.

The rules kept: the source is asked with its service account, read-only, by fixed SQL of the data
map with keys as parameters; a fact is never older than ``MAX_AGE_SECONDS`` when it is decided on,
counted from before the source was asked; whoever asks for a patient while she is being asked for
waits for that answer; a source that does not answer is a failure, never an unknown patient. What the
server says of a failure stays here, since it may quote a key.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, Self

import psycopg

from chartgate.adapters.audit_sources import SourceUnavailable
from chartgate.app.patient_record import (
    PatientRecord,
    patient_record,
    patients_query,
)
from chartgate.cedar.schema import Schema
from chartgate.datamap.model import DataMap

MAX_AGE_SECONDS: Final = 5.0
MAX_PATIENTS: Final = 50_000
CHUNK: Final = 1_000
_MOST_AT_ONCE: Final = 1_000
_CONNECTIONS: Final = 2
_CONNECT_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 10.0
_SETTINGS: Final = "SET search_path TO pg_catalog; SET statement_timeout TO '5s'"

Facts = PatientRecord | None


class FactsUnavailable(SourceUnavailable):
    """The source cannot be asked about patients now: nothing about them is decided."""

    code = "patient_facts_unavailable"
    source_state: str = ""
    """The SQLSTATE that the source gave."""


class _Kept:
    """Facts by key, the oldest first."""

    def __init__(self, *, most: int, age: float) -> None:
        self._held: Final[dict[str, tuple[float, Facts]]] = {}
        self._most: Final = most
        self._age: Final = age

    def has(self, key: str, now: float) -> bool:
        found = self._held.get(key)
        return found is not None and now - found[0] < self._age

    def facts(self, key: str) -> Facts:
        return self._held[key][1]

    def put(self, keys: Iterable[str], found: Mapping[str, Facts], asked_at: float) -> None:
        for key in keys:
            self._held.pop(key, None)
            self._held[key] = (asked_at, found.get(key))
        while len(self._held) > self._most:
            del self._held[next(iter(self._held))]

    def clear(self) -> None:
        self._held.clear()


class PatientFacts:
    """The source's answers about patients, for an event loop. An async context manager."""

    def __init__(
        self,
        conninfo: str,
        data_map: DataMap,
        schema: Schema,
        *,
        connections: int = _CONNECTIONS,
        most: int = MAX_PATIENTS,
        max_age: float = MAX_AGE_SECONDS,
    ) -> None:
        self._conninfo: Final = conninfo
        self._schema: Final = schema
        self._query: Final = patients_query(data_map, schema)
        self._kept: Final = _Kept(most=most, age=max_age)
        self._coming: Final[dict[str, asyncio.Future[Facts]]] = {}
        self._free: Final[list[psycopg.AsyncConnection[Any]]] = []
        self._gate: Final = asyncio.Semaphore(connections)
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def knows(self, key: str, now: float | None = None) -> bool:
        """Whether ``peek`` has an answer; ``now`` as ``time.monotonic`` says."""
        return self._kept.has(key, time.monotonic() if now is None else now)

    def peek(self, key: str, now: float | None = None) -> Facts:
        """The facts without waiting; raises ``KeyError`` where they would have to be fetched."""
        if not self.knows(key, now):
            raise KeyError
        return self._kept.facts(key)

    async def get(self, key: str) -> Facts:
        """The patient's facts; None where the source has no such patient. Raises
        ``FactsUnavailable``."""
        if self.knows(key):
            return self._kept.facts(key)
        return (await self.get_many((key,)))[key]

    async def get_many(self, keys: Iterable[str]) -> dict[str, Facts]:
        """The same for many, in one query for those that are not at hand."""
        now = time.monotonic()
        found: dict[str, Facts] = {}
        waiting: dict[str, asyncio.Future[Facts]] = {}
        wanted: list[str] = []
        loop = asyncio.get_running_loop()
        for key in dict.fromkeys(keys):
            if self._kept.has(key, now):
                found[key] = self._kept.facts(key)
                continue
            coming = self._coming.get(key)
            if coming is None:
                coming = self._coming[key] = loop.create_future()
                coming.add_done_callback(_seen)
                wanted.append(key)
            waiting[key] = coming
        for start in range(0, len(wanted), _MOST_AT_ONCE):
            # A task of its own: whoever asked first may be cancelled, the others still wait.
            task = loop.create_task(self._fetch(wanted[start : start + _MOST_AT_ONCE]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for key, coming in waiting.items():
            found[key] = await asyncio.shield(coming)
        return found

    async def chunks(
        self, after: str = "", *, size: int = CHUNK
    ) -> AsyncIterator[list[tuple[str, PatientRecord]]]:
        """All patients after a key, in the order of their keys, for a search."""
        while True:
            rows = await self._rows(self._query.following, [after, size])
            if not rows:
                return
            found = [(str(row[0]), self._record(row)) for row in rows]
            yield found
            after = found[-1][0]

    def forget(self) -> None:
        """Nothing that was fetched counts any more."""
        self._kept.clear()

    async def close(self) -> None:
        """End the connections; whoever still waits is refused."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._free:
            await self._free.pop().close()

    async def _fetch(self, keys: list[str]) -> None:
        # Counted from before the question: a late answer is never taken for a new one.
        asked_at = time.monotonic()
        try:
            rows = await self._some([key for key in keys if _can_be(key)])
            found = {str(row[0]): self._record(row) for row in rows}
        except BaseException as exc:
            failure = (
                exc
                if isinstance(exc, FactsUnavailable)
                else FactsUnavailable("the source database could not be asked about a patient")
            )
            for key in keys:
                coming = self._coming.pop(key)
                if not coming.done():
                    coming.set_exception(failure)
            if not isinstance(exc, Exception):
                raise
            return
        self._kept.put(keys, found, asked_at)
        for key in keys:
            coming = self._coming.pop(key)
            if not coming.done():
                coming.set_result(found.get(key))

    def _record(self, row: Sequence[Any]) -> PatientRecord:
        return patient_record(self._query.one, self._schema, str(row[0]), row[1:])

    async def _some(self, keys: list[str]) -> list[Any]:
        try:
            return await self._rows(self._query.some, [_array(keys), keys])
        except FactsUnavailable as exc:
            if exc.source_state not in _NOT_OF_THE_TYPE:
                raise
        return await self._rows(self._query.some_as_text, [keys])

    async def _rows(self, text: str, parameters: list[object]) -> list[Any]:
        async with self._gate:
            # A connection that the source has closed meanwhile is no reason to fail: once more.
            is_kept = bool(self._free)
            try:
                return await self._ask(text, parameters)
            except (psycopg.Error, OSError, TimeoutError) as exc:
                if not (is_kept and isinstance(exc, psycopg.OperationalError)):
                    raise _failed(exc) from None
            try:
                return await self._ask(text, parameters)
            except (psycopg.Error, OSError, TimeoutError) as exc:
                raise _failed(exc) from None

    async def _ask(self, text: str, parameters: list[object]) -> list[Any]:
        connection: psycopg.AsyncConnection[Any] | None = None
        is_whole = False
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                connection = self._free.pop() if self._free else await self._connect()
                cursor = await connection.execute(text.encode(), parameters)
                rows = await cursor.fetchall()
            is_whole = True
            return rows
        finally:
            if connection is not None:
                if is_whole:
                    self._free.append(connection)
                else:
                    await connection.close()

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        connection: psycopg.AsyncConnection[Any] = await psycopg.AsyncConnection.connect(
            self._conninfo,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            cursor_factory=psycopg.AsyncRawCursor,
            application_name="chartgate facts",
        )
        try:
            await connection.execute(_READ_ONLY)
        except BaseException:
            await connection.close()
            raise
        return connection


# Autocommit: no transaction is begun that could say it, so the session does.
_READ_ONLY: Final = f"SET default_transaction_read_only TO on; {_SETTINGS}"


# What a text comes to that is no value of the key's type: no such patient, and no failure.
# Invalid text, out of range, not a date, not in the calendar.
_NOT_OF_THE_TYPE: Final = frozenset({"22P02", "22003", "22007", "22008"})
_LONGEST_KEY: Final = 1_000


def _can_be(key: str) -> bool:
    """Whether PostgreSQL could hold such a text at all."""
    return (
        len(key) <= _LONGEST_KEY
        and "\0" not in key
        and not any("\ud800" <= letter <= "\udfff" for letter in key)
    )


def _array(keys: list[str]) -> str:
    """An array as PostgreSQL writes it: its element type is for the server to say."""
    quoted = (key.replace("\\", "\\\\").replace('"', '\\"') for key in keys)
    return "{" + ",".join(f'"{key}"' for key in quoted) + "}"


def _failed(exc: Exception) -> FactsUnavailable:
    state = str(getattr(exc, "sqlstate", None) or "none")
    failure = FactsUnavailable(
        f"the source database cannot be asked about patients (SQLSTATE {state})"
    )
    failure.source_state = state
    return failure


def _seen(future: "asyncio.Future[Facts]") -> None:
    """A failure that nobody waits for any more is no error of the loop's."""
    if not future.cancelled():
        future.exception()
