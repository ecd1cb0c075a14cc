"""Reading the control plane: everything at a start, afterwards what changed.

Rules kept: what makes up a snapshot is read in one transaction that sees one instant (REPEATABLE
READ); only an unbroken row of recorded changes, from the very change that was read last, is followed;
else everything is read again. People come as a stream, each with her assignments packed by the
server.
"""

import struct
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

import psycopg

from chartgate.adapters import control_plane_queries as queries
from chartgate.adapters.control_plane_people import StoredPerson
from chartgate.adapters.control_plane_services import Services, build_services
from chartgate.adapters.control_plane_snapshot import (
    ControlPlaneSnapshot,
    GrantRow,
    build_snapshot,
    next_snapshot,
    stored_person,
)

Head = tuple[int, str]
"""Epoch, and the mark of the change that made it (empty: nobody knows)."""

_MOST_CHANGES: Final = 20_000
_ONE_INSTANT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
# All rows are read whatever their order on disk, and gathered in memory: an index would be followed
# to 5,000,000 places.
_ROOM: Final = (
    "SET LOCAL work_mem = '256MB'; SET LOCAL hash_mem_multiplier = 8; SET LOCAL jit = off; "
    "SET LOCAL enable_indexscan = off; SET LOCAL enable_sort = off; "
    "SET LOCAL statement_timeout = '60s'"
)
_COPY: Final = f"COPY ({queries.PEOPLE}) TO STDOUT (FORMAT BINARY)"
_HEADER: Final = 19
_INT: Final = struct.Struct(">i")


async def read_head(connection: psycopg.AsyncConnection) -> Head:
    """Where the control plane is now."""
    row = await (await connection.execute(queries.HEAD, prepare=True)).fetchone()
    if row is None:
        raise psycopg.DataError("the control plane holds no epoch")
    return row[0], row[1] or ""


def read_apart(conninfo: str) -> ControlPlaneSnapshot:
    """Everything, by a link of its own: for a worker thread, so that an event loop goes on."""
    with psycopg.connect(
        conninfo, autocommit=True, connect_timeout=5, application_name="chartgate load"
    ) as connection:
        return read_all_now(connection)


def read_all_now(connection: psycopg.Connection) -> ControlPlaneSnapshot:
    """Everything, as one transaction sees it."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_ONE_INSTANT)
        cursor.execute(_ROOM)
        row = cursor.execute(queries.HEAD).fetchone() or (0, None)
        reader = _CopyReader()
        with cursor.copy(_COPY) as copy:
            people = [one for data in copy for one in reader.rows(bytes(data))]
        return build_snapshot(
            epoch=row[0],
            mark=row[1] or "",
            loaded_at=datetime.now(UTC),
            roles=cursor.execute(queries.ROLES).fetchall(),
            persons=people,
            grants=_grants(cursor.execute(queries.GRANTS).fetchall()),
            services=build_services(
                cursor.execute(queries.SERVICES).fetchall(),
                cursor.execute(queries.TOKENS).fetchall(),
                cursor.execute(queries.CERTIFICATES).fetchall(),
            ),
        )


async def read_since(
    connection: psycopg.AsyncConnection, before: ControlPlaneSnapshot
) -> ControlPlaneSnapshot | None:
    """What changed since ``before``; None when only reading everything will do."""
    if not before.mark and before.epoch:
        return None
    async with connection.transaction(), connection.cursor(binary=True) as cursor:
        await cursor.execute(_ONE_INSTANT)
        epoch, mark = await read_head(connection)
        if epoch < before.epoch or not mark:
            return None
        await cursor.execute(queries.CHANGES, [before.epoch, epoch], prepare=True)
        kinds = _followed(await cursor.fetchall(), before, epoch)
        if kinds is None:
            return None
        people: list[StoredPerson] = []
        if uids := kinds.get("person"):
            listed = sorted(uids)
            await cursor.execute(queries.SOME_PEOPLE, [listed, listed], prepare=True)
            people = [stored_person(row) for row in await cursor.fetchall()]
        grants: Iterable[GrantRow] = ()
        ids = frozenset(kinds.get("grant", ()))
        if ids:
            await cursor.execute(f"{queries.GRANTS} AND id = ANY(%s)", [sorted(ids)], prepare=True)
            grants = _grants(await cursor.fetchall())
        return next_snapshot(
            before,
            epoch=epoch,
            mark=mark,
            loaded_at=datetime.now(UTC),
            persons=people,
            grants=grants,
            grant_ids=ids,
            roles=await (await cursor.execute(queries.ROLES)).fetchall()
            if "role" in kinds
            else None,
            services=await _services(cursor) if "service" in kinds else None,
            policies="policy" in kinds,
        )


def _followed(
    rows: list[tuple[int, str, str, str]], before: ControlPlaneSnapshot, epoch: int
) -> dict[str, set[str]] | None:
    """What changed, by kind; None when the changes do not lead from ``before`` to ``epoch``."""
    if len(rows) > _MOST_CHANGES:
        return None
    kinds: dict[str, set[str]] = {}
    reached = before.epoch
    if reached and not any(at == reached and mark == before.mark for at, _, _, mark in rows):
        return None  # pruned, or another history
    for at, kind, key, _ in rows:
        if at == before.epoch:
            continue
        if at > reached + 1:
            return None
        reached = at
        kinds.setdefault(kind, set()).add(key)
    known = {"person", "grant", "role", "service", "policy"}
    return kinds if reached == epoch and kinds.keys() <= known else None


async def _services(cursor: psycopg.AsyncCursor) -> Services:
    return build_services(
        await (await cursor.execute(queries.SERVICES)).fetchall(),
        await (await cursor.execute(queries.TOKENS)).fetchall(),
        await (await cursor.execute(queries.CERTIFICATES)).fetchall(),
    )


def _grants(
    rows: Iterable[tuple[str, str, str, datetime, bytes | None, str | None]],
) -> list[GrantRow]:
    return [
        GrantRow(number, uid, policy, until, bytes(entry or b""), proof or "")
        for number, uid, policy, until, entry, proof in rows
    ]


class _CopyReader:
    """PostgreSQL's binary COPY format, a row at a time: header, rows of fields, an end mark."""

    def __init__(self) -> None:
        self._begun = False

    def rows(self, data: bytes) -> Iterator[StoredPerson]:
        """The people in one piece; libpq hands out whole rows."""
        at = 0
        if not self._begun:
            self._begun, at = True, _HEADER
        size = len(data)
        while at < size:
            count = int.from_bytes(data[at : at + 2], "big", signed=True)
            at += 2
            if count < 0:
                return
            fields: list[bytes | None] = []
            for _ in range(count):
                (length,) = _INT.unpack_from(data, at)
                at += 4
                if length < 0:
                    fields.append(None)
                else:
                    fields.append(data[at : at + length])
                    at += length
            yield _person(fields)


def _person(fields: list[bytes | None]) -> StoredPerson:
    uid, name, full_name, active, verifier, until, times, words = fields
    if uid is None or name is None or full_name is None:
        raise psycopg.DataError("a person without a name")
    return StoredPerson(
        uid.decode(),
        name.decode(),
        full_name.decode(),
        active == b"\x01",
        None if verifier is None else verifier.decode(),
        None if until is None else int.from_bytes(until, "big", signed=True),
        times or b"",
        words or b"",
    )
