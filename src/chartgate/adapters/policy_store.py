"""Versions of policies and data maps in the control plane's tables.

Rules kept: rows are only ever added (triggers see to it), each step with the log entry that it is
and what proves it; a bundle is read back only if its content has the hash it is filed under, within
bounds, whoever wrote the row. What the rows say is hearsay until the proofs were verified: see
``chartgate.app.policy_orders``.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

import msgspec
import psycopg

from chartgate.adapters.control_plane import ControlPlaneUnavailable, migrate
from chartgate.app.policy_bundle import MAX_BUNDLE_BYTES, Bundle
from chartgate.app.policy_orders import Sealed
from chartgate.errors import ChartgateError, Corrupt
from chartgate.govern.policy_version import Step

_MAX_CONTENT: Final = 2 * MAX_BUNDLE_BYTES
_MAX_EVIDENCE: Final = 65_537
_LOCK: Final = 0x706F6C69
_IN_FORCE: Final = (Step.ACTIVATED.value, Step.ROLLED_BACK.value)


class ForgedContent(Corrupt):
    """Stored content that does not have the hash it is filed under."""

    code = "forged_content"


@dataclass(frozen=True, slots=True)
class StepRow:
    """One row of ``policy_step``, not verified."""

    id: int
    content: str
    step: str
    generation: int
    sealed: Sealed
    has_report: bool


@dataclass(frozen=True, slots=True)
class NodeRow:
    """What a node says it has in force."""

    node: str
    subject: str
    content: str
    generation: int
    since: datetime


class PolicyStore:
    """An open store. Synchronous: for commands and worker threads."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """One transaction in which nobody else takes a step."""
        with self._transaction() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            yield

    @contextmanager
    def at_one_instant(self) -> Iterator[None]:
        """One transaction that sees the tables as they are now, whatever is added meanwhile."""
        with self._transaction() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield

    def subjects(self) -> tuple[str, ...]:
        """``policies`` and the data maps of which there are versions."""
        with self._transaction() as cursor:
            cursor.execute("SELECT DISTINCT subject FROM policy_bundle ORDER BY subject")
            return tuple(row[0] for row in cursor.fetchall())

    def add_bundle(self, subject: str, bundle: Bundle) -> None:
        """File the content under its hash; once is enough."""
        text = msgspec.json.encode(dict(bundle.files))
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO policy_bundle (subject, hash, content) VALUES (%s, %s, %s) "
                "ON CONFLICT DO NOTHING",
                [subject, bundle.hash, zlib.compress(text, 9)],
            )

    def bundle(self, subject: str, content: str) -> Bundle:
        """The content of this hash; raises ``ForgedContent`` when the row holds another."""
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT CASE WHEN octet_length(content) <= %s THEN content END "
                "FROM policy_bundle WHERE subject = %s AND hash = %s",
                [_MAX_CONTENT, subject, content],
            )
            row = cursor.fetchone()
        if row is None:
            raise ForgedContent(f"the store has no content for {content[:12]}")
        if row[0] is None:
            raise ForgedContent(f"what is stored as {content[:12]} is larger than any version")
        bundle = _unpacked(bytes(row[0]), content)
        if bundle.hash != content:
            raise ForgedContent(f"what is stored as {content[:12]} has the hash {bundle.hash[:12]}")
        return bundle

    def add_step(
        self,
        subject: str,
        content: str,
        step: Step,
        sealed: Sealed,
        *,
        generation: int = 0,
        report: str | None = None,
    ) -> None:
        """A step that is in the log already; tells every node."""
        packed = None if report is None else zlib.compress(report.encode(), 9)
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO policy_step (subject, hash, step, generation, entry, proof, report) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [subject, content, step.value, generation, sealed.entry, sealed.proof, packed],
            )

    def steps(self, subject: str) -> list[StepRow]:
        """All steps of a subject, in the order in which they were filed."""
        return self._rows("WHERE subject = %s ORDER BY id", [subject])

    def orders(self, subject: str, *, above: int, since: int) -> list[StepRow]:
        """Activations and rollbacks above a generation, or filed since a row, newest first."""
        return self._rows(
            "WHERE subject = %s AND step = ANY(%s) AND (generation > %s OR id > %s) "
            "ORDER BY generation DESC, id",
            [subject, list(_IN_FORCE), above, since],
        )

    def approvals(self, subject: str, content: str) -> list[StepRow]:
        """The approvals of a version, newest first."""
        return self._rows(
            "WHERE subject = %s AND hash = %s AND step = %s ORDER BY id DESC",
            [subject, content, Step.APPROVED.value],
        )

    def approved_last(self, subject: str) -> StepRow | None:
        """The newest approval of any version of a subject."""
        rows = self._rows(
            "WHERE subject = %s AND step = %s ORDER BY id DESC LIMIT 1",
            [subject, Step.APPROVED.value],
        )
        return rows[0] if rows else None

    def holds(self, subject: str, sealed: Sealed) -> bool:
        """Whether the step is among the rows, as it was filed."""
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT 1 FROM policy_step WHERE subject = %s AND entry = %s AND proof = %s",
                [subject, sealed.entry, sealed.proof],
            )
            return cursor.fetchone() is not None

    def last_id(self) -> int:
        """The number of the newest row."""
        with self._transaction() as cursor:
            row = cursor.execute("SELECT coalesce(max(id), 0) FROM policy_step").fetchone()
        return int(row[0]) if row else 0

    def report(self, row_id: int) -> str | None:
        """The report that was filed with a step; its hash stands in the step's log entry."""
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT report FROM policy_step WHERE id = %s AND octet_length(report) <= %s",
                [row_id, _MAX_CONTENT],
            )
            row = cursor.fetchone()
        return None if row is None or row[0] is None else _text(bytes(row[0]))

    def set_node(self, row: NodeRow) -> None:
        """A node says what it has in force."""
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO policy_node (node, subject, hash, generation, since) "
                "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (node, subject) DO UPDATE SET "
                "hash = excluded.hash, generation = excluded.generation, since = excluded.since",
                [row.node, row.subject, row.content, row.generation, row.since],
            )

    def nodes(self) -> list[NodeRow]:
        """What each node said last."""
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT left(node, 64), left(subject, 64), left(hash, 64), generation, "
                # An instant that Python does not have is brought to one that it has.
                "least(greatest(since, '0002-01-01 UTC'), '9998-01-01 UTC') "
                "FROM policy_node ORDER BY node, subject LIMIT 1000"
            )
            return [NodeRow(*row) for row in cursor.fetchall()]

    def _rows(self, condition: LiteralString, arguments: list[object]) -> list[StepRow]:
        with self._transaction() as cursor:
            cursor.execute(
                # Cut off where no log entry or proof ends: what is longer does not verify.
                "SELECT id, left(hash, 64), left(step, 64), generation, "
                f"substr(entry, 1, {_MAX_EVIDENCE}), left(proof, {_MAX_EVIDENCE}), "
                f"report IS NOT NULL FROM policy_step {condition}",
                arguments,
            )
            return [
                StepRow(row[0], row[1], row[2], row[3], Sealed(bytes(row[4]), row[5]), row[6])
                for row in cursor.fetchall()
            ]

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor]:
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                yield cursor
        except psycopg.OperationalError as exc:
            raise ControlPlaneUnavailable("the control plane's database is gone") from exc


def connect(conninfo: str) -> psycopg.Connection:
    """A connection for a ``PolicyStore``, to tables that are there already."""
    try:
        return psycopg.connect(
            conninfo, autocommit=True, connect_timeout=5, application_name="chartgate policy"
        )
    except psycopg.OperationalError as exc:
        raise ControlPlaneUnavailable("the control plane's database cannot be reached") from exc


@contextmanager
def open_policy_store(conninfo: str) -> Iterator[PolicyStore]:
    """Connect, and bring the tables up to this program's version."""
    with connect(conninfo) as connection:
        migrate(connection)
        yield PolicyStore(connection)


def _text(packed: bytes) -> str:
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(packed, _MAX_CONTENT)
        if not unpacking.eof or unpacking.unused_data:
            raise ForgedContent("stored content is cut off, or larger than any version")
        return data.decode()
    except (zlib.error, UnicodeDecodeError) as exc:
        raise ForgedContent("stored content is not what was written") from exc


def _unpacked(packed: bytes, content: str) -> Bundle:
    try:
        return Bundle(msgspec.json.decode(_text(packed), type=dict[str, str]))
    except (msgspec.MsgspecError, ChartgateError) as exc:
        raise ForgedContent(f"what is stored as {content[:12]} is not a version") from exc
