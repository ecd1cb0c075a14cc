"""People, roles and assignments in PostgreSQL: how commands change them.

Rules kept: one call is one transaction, and the tables' own triggers raise the epoch and notify in
it; a uid is random and never reused; what ends is given an end, never removed. Nodes read through
``control_plane_feed``.
"""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Self

import psycopg

from chartgate.adapters import control_plane_schema as schema
from chartgate.adapters.control_plane_queries import ROLES
from chartgate.adapters.control_plane_read import read_all_now
from chartgate.adapters.control_plane_snapshot import ControlPlaneSnapshot, RoleRecord
from chartgate.errors import Misconfigured

_MIGRATION_LOCK = 0x63686172  # one number for all nodes; any will do


class ControlPlaneUnavailable(Misconfigured):
    """The control plane cannot be reached, or is of a version this program does not know."""

    code = "control_plane_unavailable"


class UnknownName(Misconfigured):
    """A person, role or assignment that the control plane does not hold."""

    code = "unknown_name"


def open_control_plane(conninfo: str) -> "ControlPlane":
    """Connect and bring the tables up to this program's version."""
    try:
        connection = psycopg.connect(
            conninfo, autocommit=True, connect_timeout=5, application_name="chartgate"
        )
    except psycopg.OperationalError as exc:
        raise ControlPlaneUnavailable("the control plane's database cannot be reached") from exc
    try:
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return ControlPlane(connection)


def migrate(connection: psycopg.Connection) -> None:
    """Apply the migrations that are missing; two nodes that start at once do it once."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_MIGRATION_LOCK])
        cursor.execute("CREATE TABLE IF NOT EXISTS migration (version int PRIMARY KEY)")
        row = cursor.execute("SELECT coalesce(max(version), 0) FROM migration").fetchone()
        version = row[0] if row else 0
        if version > len(schema.MIGRATIONS):
            raise ControlPlaneUnavailable(
                f"the control plane's tables have version {version}; "
                f"this program knows {len(schema.MIGRATIONS)}: upgrade it"
            )
        for number, step in enumerate(schema.MIGRATIONS[version:], start=version + 1):
            cursor.execute(step)
            cursor.execute("INSERT INTO migration VALUES (%s)", [number])


class ControlPlane:
    """An open control plane. Synchronous: for commands, never for the gateway's loop."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def change(self) -> Iterator[psycopg.Cursor]:
        """One transaction, for what other modules keep in these tables."""
        with self._change() as cursor:
            yield cursor

    def set_roles(self, roles: Iterable[RoleRecord]) -> None:
        """Store the role hierarchy; a role that is no longer listed must not be assigned."""
        wanted = {role.name: role for role in roles}
        for role in wanted.values():
            for parent in role.parents:
                if parent not in wanted:
                    raise Misconfigured(f"role {role.name}: its parent {parent} is not a role")
        with self._change() as cursor:
            stored = {row[0]: row for row in cursor.execute(ROLES).fetchall()}
            for role in wanted.values():
                row = (
                    role.name,
                    role.title,
                    role.default_purpose,
                    list(role.purposes),
                    list(role.parents),
                )
                if stored.get(role.name) != row:
                    cursor.execute(
                        "INSERT INTO role (name, title, default_purpose, purposes, parents) "
                        "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET "
                        "title = excluded.title, default_purpose = excluded.default_purpose, "
                        "purposes = excluded.purposes, parents = excluded.parents",
                        row,
                    )
            gone = sorted(stored.keys() - wanted.keys())
            if gone:
                try:
                    cursor.execute("DELETE FROM role WHERE name = ANY(%s)", [gone])
                except psycopg.errors.ForeignKeyViolation:
                    raise Misconfigured(
                        f"one of the roles {', '.join(gone)} is gone from the list "
                        "but still assigned to somebody"
                    ) from None

    def upsert_person(self, name: str, full_name: str, *, active: bool = True) -> str:
        """Add a person, or change her full name and whether she is active; answers her uid."""
        uid = f"p_{secrets.token_hex(8)}"
        with self._change() as cursor:
            cursor.execute(
                "INSERT INTO person (uid, name, full_name, active) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (name) DO UPDATE SET full_name = excluded.full_name, "
                "active = excluded.active "
                "WHERE (person.full_name, person.active) "
                "IS DISTINCT FROM (excluded.full_name, excluded.active)",
                [uid, name, full_name, active],
            )
            return self._uid(cursor, name)

    def set_credential(self, name: str, verifier: str, until: datetime) -> None:
        """Let ``name`` log in with the password behind this SCRAM verifier until then."""
        if not verifier.startswith("SCRAM-SHA-256$"):
            raise Misconfigured("a credential is a SCRAM-SHA-256 verifier")
        with self._change() as cursor:
            uid = self._uid(cursor, name)
            cursor.execute(
                "UPDATE person SET scram_verifier = %s, credential_until = %s WHERE uid = %s",
                [verifier, until, uid],
            )

    def assign(
        self,
        name: str,
        role: str,
        department: str | None,
        *,
        valid_from: datetime,
        valid_until: datetime | None = None,
        reference: str | None = None,
        patient: str | None = None,
    ) -> int:
        """Give a role for a time; the same open-ended assignment given twice is one.

        ``patient``: the key of the patient whom the assignment is about, as the source has it.
        """
        with self._change() as cursor:
            uid = self._uid(cursor, name)
            row = cursor.execute(
                "SELECT id FROM assignment WHERE person_uid = %s AND role = %s "
                "AND department IS NOT DISTINCT FROM %s AND reference IS NOT DISTINCT FROM %s "
                "AND valid_until IS NOT DISTINCT FROM %s AND patient IS NOT DISTINCT FROM %s "
                "AND valid_from <= %s",
                [uid, role, department, reference, valid_until, patient, valid_from],
            ).fetchone()
            if row is None:
                try:
                    row = cursor.execute(
                        "INSERT INTO assignment "
                        "(person_uid, role, department, valid_from, valid_until, reference, patient) "
                        "VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
                        [uid, role, department, valid_from, valid_until, reference, patient],
                    ).fetchone()
                except psycopg.errors.ForeignKeyViolation:
                    raise UnknownName(f"there is no role {role}") from None
            return int(row[0]) if row else 0

    def end_assignment(self, assignment: int, *, at: datetime) -> None:
        """The assignment stops counting at ``at``; one that ended earlier stays as it is."""
        with self._change() as cursor:
            cursor.execute(
                "UPDATE assignment SET valid_until = greatest(valid_from, least(valid_until, %s)) "
                "WHERE id = %s",
                [at, assignment],
            )
            if cursor.rowcount != 1:
                raise UnknownName(f"there is no assignment {assignment}")

    def deactivate(self, name: str) -> None:
        """Cut a person off: no login, no statement, no credential; her row and uid stay."""
        with self._change() as cursor:
            uid = self._uid(cursor, name)
            cursor.execute(
                "UPDATE person SET active = false, scram_verifier = NULL, "
                "credential_until = NULL WHERE uid = %s",
                [uid],
            )

    def snapshot(self) -> ControlPlaneSnapshot:
        """Everything, as one transaction sees it."""
        try:
            return read_all_now(self._connection)
        except psycopg.OperationalError as exc:
            raise ControlPlaneUnavailable("the control plane's database is gone") from exc

    @contextmanager
    def _change(self) -> Iterator[psycopg.Cursor]:
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                yield cursor
        except psycopg.errors.CheckViolation as exc:
            name = exc.diag.constraint_name
            raise Misconfigured(f"the control plane refuses the change: {name}") from None
        except psycopg.OperationalError as exc:
            raise ControlPlaneUnavailable("the control plane's database is gone") from exc

    @staticmethod
    def _uid(cursor: psycopg.Cursor, name: str) -> str:
        row = cursor.execute("SELECT uid FROM person WHERE name = %s", [name]).fetchone()
        if row is None:
            raise UnknownName("there is no person of that name")
        return str(row[0])
