"""One session at the gate: who it is, for what purpose, and what it may see right now.

Looked at anew for every statement, in memory: an account that was cut off, an assignment that
ended or a control link that was lost takes effect on the next statement, without a job.
"""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Protocol

from chartgate.app.entitlement import Asker, DecisionPoint, Entitlement
from chartgate.app.in_force import InForce
from chartgate.app.plan_cache import PlanCache
from chartgate.app.planned import MAX_SOUGHT, Looked, Planned
from chartgate.app.rolebook import PurposeRefused
from chartgate.app.session_views import SessionViews, Source
from chartgate.app.table_uses import table_uses
from chartgate.app.tokens import PATIENT, PatientTokens
from chartgate.errors import ChartgateError, Refused
from chartgate.model.event import Decision, SessionEnded, SessionStarted, TableUse, encode
from chartgate.model.principal import Person
from chartgate.sql.parse import ParsedStatement
from chartgate.sql.redact import statement_class
from chartgate.sql.rewrite import rewrite
from chartgate.sql.seeking import sought_by_name
from chartgate.sql.statement import (
    Rewritten,
    SetPurpose,
    Setting,
    ShowPurpose,
    Transaction,
)

_MAX_DECISION: Final = 65_000
"""Bytes of a decision, below the 65,535 of a log entry by what encoding may add."""


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
        in_force: InForce,
        directory: Directory,
        tokens: PatientTokens,
        now: Callable[[], datetime],
    ) -> None:
        self.id: Final = session_id
        self.name: Final = name
        self.node: Final = node
        self.channel: Final = channel
        self.purpose = purpose
        self.point: DecisionPoint = in_force.current.point
        """What the newest entitlement was decided by."""
        self._secret: Final = secret
        self._in_force: Final = in_force
        self._source: Source = in_force.current.source
        self._directory: Final = directory
        self._tokens: Final = tokens
        self._now: Final = now
        self._requests = 0
        self._signature: object = None
        self._entitlement: Entitlement | None = None
        self._views: SessionViews | None = None
        self._plans: Final[PlanCache[Planned]] = PlanCache()
        self._known_tokens: dict[tuple[int, str, str], str] = {}
        self._known_names: frozenset[str] | None = None
        self._domains: dict[str, str] | None = None
        self._first_claim = ""
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
        year = self._now().astimezone(UTC).year
        found = self._known_tokens.get((year, domain, value))
        if found is None:
            found = self._tokens.token(domain, value, year=year)
            if len(self._known_tokens) < 100_000:
                self._known_tokens[year, domain, value] = found
        return found

    def begin(self, purpose: str) -> None:
        """The purpose claimed at login; an empty one is the default of the role."""
        self.check_claim(purpose)
        self._first_claim = purpose
        self.adopt(purpose)

    def check_claim(self, purpose: str) -> None:
        """Raise ``PurposeRefused`` unless the person may claim the purpose now."""
        live = self._current_person().live(at=self._now())
        roles = self._in_force.point.roles
        wanted = purpose or roles.default_purpose(live)
        if wanted is None:
            raise PurposeRefused("none of your roles has a purpose of use")
        roles.check_claim(wanted, live)

    def adopt(self, purpose: str) -> None:
        """From now on the purpose is this one, checked before; an empty one is the default."""
        live = self._current_person().live(at=self._now())
        self.purpose = purpose or self._in_force.point.roles.default_purpose(live) or self.purpose

    def reset(self) -> None:
        """RESET ALL and DISCARD ALL: back to what was claimed at login."""
        self.adopt(self._first_claim)

    def entitlement(self) -> Entitlement:
        """What the person may see now; raises ``AccessEnded`` when that is nothing at all."""
        at = self._now()
        person = self._current_person()
        live = person.live(at=at)
        current = self._entitlement
        decides = self._in_force.current
        if (
            current is None
            or decides.point is not self.point
            or (person, live, self.purpose) != self._signature
            or not current.is_valid(at=at)
        ):
            if not live:
                raise AccessEnded("your access has ended: no role is assigned to you now")
            if decides.point is not self.point:
                # Another version of the policies or of the map came into force.
                self._entitlement = self._views = self._domains = self._known_names = None
                self.point, self._source = decides.point, decides.source
            asker = self._asker(person, at)
            current = self.point.entitlement(asker, self._source.tables, at=at, secret=self._secret)
            self.person = person
            self._signature, self._entitlement = (person, live, self.purpose), current
            self._views = SessionViews(current, self._source, self.name, self.point.data_map.schema)
        return current

    def _asker(self, person: Person, at: datetime) -> Asker:
        try:
            return self.point.asker(person, self.purpose, at=at)
        except PurposeRefused:
            # The role that the purpose was claimed for has ended: as after a new login.
            self.purpose = self.point.roles.default_purpose(person.live(at=at)) or ""
            self._first_claim = ""
        try:
            return self.point.asker(person, self.purpose, at=at)
        except PurposeRefused as exc:
            raise AccessEnded("your access has ended: none of your roles has a purpose") from exc

    def sought_by(self, statements: Iterable[ParsedStatement]) -> tuple[str, ...]:
        """Tokens of the patients that refused statements look for by a constant."""
        if self._domains is None:
            self._domains = {
                column: domain
                for table in self.point.data_map.tables
                for column, domain in self.point.plan(table).patient_columns.items()
            }
        looked = Looked(self.token)
        for statement in statements:
            found = islice(sought_by_name(statement.node, self._domains), MAX_SOUGHT)
            with suppress(Refused):  # too many to list: what was listed stays
                looked.add(found)
        return looked.tokens[:MAX_SOUGHT]

    def redacted(self, statement: ParsedStatement | None) -> str:
        """The text of a statement as the log may hold it; empty for one that was not read."""
        if statement is None:
            return ""
        if self._known_names is None:
            self._known_names = frozenset(
                part
                for table in self._source.tables.values()
                for part in (
                    table.name.schema,
                    table.name.name,
                    *(column.name for column in table.columns),
                )
            )
        return statement_class(statement, self._known_names)

    def statements(self, text: str) -> tuple[ParsedStatement, ...]:
        """The statements of a message, without empty ones. Raises ``Refused``."""
        return tuple(s for s in self._plans.statements(text) if not s.empty)

    def plan(self, statement: ParsedStatement) -> Planned:
        """Decide a statement. Raises ``Refused`` naming the construct, or ``AccessEnded``."""
        entitlement = self.entitlement()
        return self._plans.plan(statement, entitlement, lambda: self._plan(statement, entitlement))

    def _plan(self, statement: ParsedStatement, entitlement: Entitlement) -> Planned:
        assert self._views is not None
        step = rewrite(statement, self._views)
        match step:
            case SetPurpose(value):
                # The source holds an idle copy, so that the reply is the server's own.
                text = value.replace("'", "''")
                sql, words = f"SET chartgate.purpose TO '{text}'", "SET chartgate.purpose"
            case ShowPurpose():
                sql, words = _shown("chartgate.purpose", self.purpose), "SHOW chartgate.purpose"
            case Transaction(_, sql):
                # A savepoint's name is the client's own and could be anything.
                return self._aside(step, sql, "transaction", self.redacted(statement), entitlement)
            case Setting():
                words = f"{step.verb} {step.name}"
                if not step.virtual:
                    sql = step.sql
                elif step.verb == "show":
                    sql = _shown(step.name, ", ".join(self._views.scene.search_path))
                else:
                    sql = "SET chartgate.unused TO ''"
            case _:
                return self._planned(step, entitlement)
        return self._aside(step, sql, "setting", words, entitlement)

    @staticmethod
    def _aside(
        step: "SetPurpose | ShowPurpose | Transaction | Setting",
        sql: str,
        action: str,
        words: str,
        entitlement: Entitlement,
    ) -> Planned:
        return Planned(step, sql, action, words, asker=entitlement.asker)

    def _planned(self, step: Rewritten, entitlement: Entitlement) -> Planned:
        uses, determining = table_uses(step, entitlement)
        return Planned(
            step,
            step.sql,
            step.kind.value,
            step.statement_class,
            tables=uses,
            determining=tuple(sorted(determining)),
            asker=entitlement.asker,
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

    def allowed(self, request: str, planned: Planned, looked: Looked) -> Decision:
        """The event of an allowed statement, with what is needed to decide it again.

        Raises ``Refused`` when it would not fit in the log.
        """
        assert planned.asker is not None
        rewritten = planned.rewritten
        decision = self._decision(
            request,
            allowed=True,
            action=planned.action,
            statement=planned.statement,
            asker=planned.asker,
            tables=planned.tables,
            determining=planned.determining,
            sought=looked.tokens,
            unread=looked.unread,
            scope_only=rewritten is not None and rewritten.scope_only,
        )
        size = len(planned.statement) + 40 * len(looked.tokens) + 1_000 * len(planned.tables)
        size += 200 * len(planned.asker.assignments)
        # Only what is large is worth encoding twice.
        if size > 8_000 and len(encode(decision)) > _MAX_DECISION:
            raise Refused("the statement is too large to be recorded")
        return decision

    def refused(
        self,
        request: str,
        reason: str,
        length: int,
        statement: str = "",
        sought: tuple[str, ...] = (),
    ) -> Decision:
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
            sought=sought,
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
        unread: int = 0,
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
            assignments=tuple(
                a.held(self.token(PATIENT, a.patient) if a.patient else "")
                for a in asker.assignments
            ),
            context={
                "source": self.point.data_map.source,
                "now": self.stamp(),
                # Looked for by a value whose spelling we do not read: not among ``sought``.
                **({"sought_unread": str(unread)} if unread else {}),
            },
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


def _shown(name: str, value: str) -> str:
    text = value.replace("'", "''")
    return f"SELECT '{text}'::pg_catalog.text AS \"{name}\""
