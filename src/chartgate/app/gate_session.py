"""One session at the gate: who it is, for what purpose, and what it may see right now.

Looked at anew for every statement, in memory: an account that was cut off, an assignment that
ended or a control link that was lost takes effect on the next statement, without a job.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from chartgate.app.entitlement import Asker, DecisionPoint, Entitlement
from chartgate.app.rolebook import PurposeRefused
from chartgate.app.tokens import PatientTokens
from chartgate.errors import ChartgateError, Refused
from chartgate.model.event import Decision, SessionEnded, SessionStarted, TableUse
from chartgate.model.principal import Person
from chartgate.sql.parse import ParsedStatement
from chartgate.sql.rewrite import rewrite
from chartgate.sql.statement import (
    Kind,
    Rewritten,
    SetPurpose,
    Setting,
    ShowPurpose,
    Transaction,
)
from chartgate.sql.system_catalog import system_views
from chartgate.sql.system_objects import Scene
from chartgate.sql.views import Table, TableName, TableView, WriteAction, WriteView

SYSTEM_SCHEMAS: Final = ("pg_catalog", "information_schema")


class AccessEnded(ChartgateError):
    """The person may not go on: the account ended, or the gate cannot know whether it did."""

    code = "access_ended"
    sqlstate = "57P01"


class Directory(Protocol):
    """Who people are at this instant, from the control plane."""

    def person(self, name: str) -> Person | None:
        """The person with this login name; ``None`` when there is none."""

    def is_fresh(self) -> bool:
        """Whether the control plane was heard of recently enough to be believed (15 s)."""


@dataclass(frozen=True, slots=True)
class Source:
    """The source database as the gate knows it: its tables and its system catalogs."""

    tables: Mapping[TableName, Table]
    catalog: Mapping[TableName, Table]


@dataclass(frozen=True, slots=True)
class Planned:
    """A statement, decided for the person as she is now, with what the log says of it."""

    step: "Rewritten | SetPurpose | ShowPurpose | Transaction | Setting | None"
    """``None`` for a statement without content, which has nothing to decide."""
    upstream: str
    action: str
    statement: str
    tables: tuple[TableUse, ...] = ()
    determining: tuple[str, ...] = ()

    @property
    def rewritten(self) -> Rewritten | None:
        """The rewritten statement, if it reads or writes tables."""
        return self.step if isinstance(self.step, Rewritten) else None


class _Views:
    """The person's views of the source's tables and of the system catalogs, as one."""

    def __init__(self, entitlement: Entitlement, source: Source, login: str, schema: str) -> None:
        self._entitlement = entitlement
        self._source = source
        self._scene = Scene(
            tables=entitlement.visible(),
            schemas=(schema,),
            search_path=(schema,),
            login=login,
        )
        self._system = system_views(self._scene, source.catalog)

    @property
    def scene(self) -> Scene:
        return self._scene

    def resolve(self, schema: str | None, name: str) -> TableName:
        # As on every PostgreSQL search path, pg_catalog comes first.
        for system in SYSTEM_SCHEMAS if schema in SYSTEM_SCHEMAS else ("pg_catalog",):
            found = TableName(system, name)
            if schema in {None, system} and found in self._system:
                return found
        if schema in SYSTEM_SCHEMAS:
            raise Refused(f'the catalog relation "{schema}.{name}" is not on the allow-list')
        return self._entitlement.resolve(schema, name)

    def read(self, table: TableName) -> TableView:
        return self._system.get(table) or self._entitlement.read(table)

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        if table in self._system:
            raise Refused(f"{action} on the system catalog {table} is not allowed")
        return self._entitlement.write(action, table)


class GateSession:
    """State and rules of one session, without I/O: time, ids and the directory are given."""

    def __init__(
        self,
        *,
        session_id: str,
        name: str,
        node: str,
        channel: str,
        secret: str,
        purpose: str,
        point: DecisionPoint,
        source: Source,
        directory: Directory,
        tokens: PatientTokens,
        now: Callable[[], datetime],
    ) -> None:
        self.id: Final = session_id
        self.name: Final = name
        self.node: Final = node
        self.channel: Final = channel
        self.purpose = purpose
        self.point: Final = point
        self._secret: Final = secret
        self._source: Final = source
        self._directory: Final = directory
        self._tokens: Final = tokens
        self._now: Final = now
        self._requests = 0
        self._signature: object = None
        self._entitlement: Entitlement | None = None
        self._views: _Views | None = None
        self._known_tokens: dict[tuple[str, str], str] = {}
        self.person: Person = self._current_person()

    def stamp(self) -> str:
        """The time as events carry it."""
        return self._now().astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    def next_request(self) -> str:
        """The id of the next statement execution."""
        self._requests += 1
        return f"{self.id}/{self._requests}"

    def token(self, domain: str, value: str) -> str:
        """The patient token of a key in this year's epoch."""
        found = self._known_tokens.get((domain, value))
        if found is None:
            found = self._tokens.token(domain, value, year=self._now().astimezone(UTC).year)
            if len(self._known_tokens) < 100_000:
                self._known_tokens[domain, value] = found
        return found

    def claim(self, purpose: str) -> None:
        """Change the claimed purpose; an empty one goes back to the default of the role."""
        at = self._now()
        live = self._current_person().live(at=at)
        wanted = purpose or self.point.roles.default_purpose(live)
        if wanted is None:
            raise PurposeRefused("none of your roles has a purpose of use")
        self.point.roles.check_claim(wanted, live)
        self.purpose = wanted

    def entitlement(self) -> Entitlement:
        """What the person may see now; raises ``AccessEnded`` when that is nothing at all."""
        at = self._now()
        person = self._current_person()
        live = person.live(at=at)
        signature = (person, live, self.purpose)
        current = self._entitlement
        if current is None or signature != self._signature or not current.is_valid(at=at):
            if not live:
                raise AccessEnded("your access has ended: no role is assigned to you now")
            asker = self.point.asker(person, self.purpose, at=at)
            current = self.point.entitlement(asker, self._source.tables, at=at, secret=self._secret)
            self.person = person
            self._signature, self._entitlement = signature, current
            self._views = _Views(current, self._source, self.name, self.point.data_map.schema)
        return current

    def plan(self, statement: ParsedStatement) -> Planned:
        """Decide a statement. Raises ``Refused`` naming the construct, or ``AccessEnded``."""
        entitlement = self.entitlement()
        assert self._views is not None
        step = rewrite(statement, self._views)
        match step:
            case SetPurpose(value):
                # The source holds an idle copy, so that the reply is the server's own.
                text = value.replace("'", "''")
                return Planned(
                    step, f"SET chartgate.purpose TO '{text}'", "setting", "SET chartgate.purpose"
                )
            case ShowPurpose():
                shown = f"SELECT '{self.purpose}'::pg_catalog.text AS \"chartgate.purpose\""
                return Planned(step, shown, "setting", "SHOW chartgate.purpose")
            case Transaction(_, sql):
                return Planned(step, sql, "transaction", sql)
            case Setting():
                sql = "SET chartgate.unused TO ''" if step.virtual else step.sql
                return Planned(step, sql, "setting", f"{step.verb} {step.name}")
        return self._planned(step, entitlement)

    def _planned(self, step: Rewritten, entitlement: Entitlement) -> Planned:
        uses, determining = [], set()
        for read in step.tables:
            if read.table.schema in SYSTEM_SCHEMAS:
                continue
            planned = entitlement.planned(read.table)
            levels = {c.name: c.level for c in planned.view.columns}
            uses.append(
                TableUse(
                    table=str(read.table),
                    columns={c: str(levels[c]) for c in read.columns if c in levels},
                    residual=planned.residual,
                    row_filter=planned.view.row_predicate is not None,
                )
            )
            determining |= planned.determining
            if read.write is not None:
                action = _WRITE_ACTIONS[step.kind]
                determining |= entitlement.write_determining(action, read.table)
        return Planned(
            step,
            step.sql,
            step.kind.value,
            step.statement_class,
            tables=tuple(uses),
            determining=tuple(sorted(determining)),
        )

    def started(self, *, client: str, application: str) -> SessionStarted:
        """The event of a login."""
        return SessionStarted(
            at=self.stamp(),
            node=self.node,
            session=self.id,
            person=self.person.uid,
            channel=self.channel,
            client=client,
            application=application[:64],
            purpose=self.purpose,
        )

    def ended(self, reason: str) -> SessionEnded:
        """The event of a session's end."""
        return SessionEnded(
            at=self.stamp(), node=self.node, session=self.id, person=self.person.uid, reason=reason
        )

    def allowed(self, request: str, planned: Planned, sought: tuple[str, ...]) -> Decision:
        """The event of an allowed statement, with what is needed to decide it again."""
        asker = self.entitlement().asker
        rewritten = planned.rewritten
        return self._decision(
            request,
            allowed=True,
            action=planned.action,
            statement=planned.statement,
            asker=asker,
            tables=planned.tables,
            determining=planned.determining,
            sought=sought,
            scope_only=rewritten is not None and rewritten.scope_only,
        )

    def refused(self, request: str, reason: str, length: int, statement: str = "") -> Decision:
        """The event of a refused statement: what was refused, in words, without values."""
        current = self._entitlement
        return self._decision(
            request,
            allowed=False,
            action="refused",
            statement=statement,
            asker=current.asker if current is not None else Asker(self.person, (), self.purpose),
            reason=reason,
            length=length,
        )

    def _decision(
        self,
        request: str,
        *,
        allowed: bool,
        action: str,
        statement: str,
        asker: Asker,
        tables: tuple[TableUse, ...] = (),
        determining: tuple[str, ...] = (),
        sought: tuple[str, ...] = (),
        scope_only: bool = False,
        reason: str = "",
        length: int = 0,
    ) -> Decision:
        return Decision(
            at=self.stamp(),
            node=self.node,
            session=self.id,
            person=asker.person.uid,
            request=request,
            allowed=allowed,
            action=action,
            purpose=asker.purpose,
            statement=statement[:16_000],
            statement_length=length or len(statement),
            statement_class=hashlib.sha256(statement.encode()).hexdigest()[:16]
            if statement
            else "",
            reason=reason,
            tables=tables,
            determining=determining,
            policy_set=self.point.policies.hash,
            data_map=self.point.data_map.hash,
            roles=asker.roles,
            departments=asker.departments,
            context={"source": self.point.data_map.source, "now": self.stamp()},
            sought=sought,
            scope_only=scope_only,
        )

    def _current_person(self) -> Person:
        if not self._directory.is_fresh():
            raise AccessEnded(
                "the control plane has not been heard of for 15 seconds, so nothing is released"
            )
        person = self._directory.person(self.name)
        if person is None or not person.active:
            raise AccessEnded("your access has ended: the account is not active")
        return person


_WRITE_ACTIONS: Final[Mapping[Kind, WriteAction]] = {
    Kind.INSERT: "create",
    Kind.UPDATE: "update",
    Kind.DELETE: "delete",
}
