"""Who sits at a connection: the session that the gate's conversation speaks for, which changes hands.

Rules kept: without a person, a connection can end a transaction and nothing else; a person's
statements are decided by her own ``GateSession``, the one that the gateway uses, so what is rewritten,
refused and recorded is the same there and here. A pool hands one connection to many people in
turn: the gate's protocol decides a prepared statement again as soon as what its person may see is
another thing, so a plan made for one is never run for the next.
"""

from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any, Final, Protocol, cast

import msgspec

from chartgate.app.commands import Command, FromClient, Record
from chartgate.app.entitlement import Asker, Entitlement
from chartgate.app.gate_session import AccessEnded, Directory, GateSession
from chartgate.app.in_force import InForce
from chartgate.app.planned import Planned
from chartgate.app.session_views import SYSTEM_SCHEMAS, SessionViews, Source
from chartgate.app.tokens import PatientTokens
from chartgate.errors import LogUnavailable, Refused
from chartgate.model.event import SessionStarted
from chartgate.model.principal import Person
from chartgate.sql.parse import ParsedStatement
from chartgate.sql.statement import SetPurpose
from chartgate.sql.system_catalog import system_views
from chartgate.sql.system_objects import Scene
from chartgate.sql.views import TableName

CHANNEL: Final = "embedded"
NO_PERSON: Final = (
    "no person is bound to this connection: use chartgate.sdk.sqlalchemy.acting_as, or a "
    "ProtectedSession with a person"
)
_OPENING: Final = frozenset({"select_stmt", "variable_show_stmt", "variable_set_stmt"})
"""What a driver says of its own accord when a connection is new."""
_PING: Final = "SELECT 1"
"""How a pool asks whether a connection is alive (``pool_pre_ping``)."""


class NoPersonBound(Refused):
    """A statement came for which nobody answers."""

    code = "no_person_bound"


class Acting:
    """A person at work in this process for one purpose: one session in the log."""

    def __init__(self, session: GateSession, *, client: str, application: str) -> None:
        self.session: Final = session
        self.person: Final = session.name
        self.uid: Final = session.person.uid
        self.used: float = 0.0
        """When a connection was last given to her, on the monotonic clock."""
        self.seats: int = 0
        """Connections that are hers at this moment."""
        self.is_recorded: bool = False
        self._client: Final = client
        self._application: Final = application

    def check(self, purpose: str) -> None:
        """Raise ``AccessEnded`` or ``PurposeRefused`` if she may not go on; from any thread."""
        self.session.check_claim(purpose)

    def started(self) -> SessionStarted:
        """The event that comes before the first statement."""
        event = self.session.started(client=self._client, application=self._application)
        # Who she is was found out by the application, which is believed.
        return msgspec.structs.replace(event, authentication="application")


class Seat:
    """One connection of a pool. ``acting`` is set by the application's thread between transactions
    and read by the gate's when a message of that connection comes."""

    __slots__ = (
        "acting", "claim", "is_opening", "is_resting", "is_seated", "is_spoilt", "process", "ticket",
    )  # fmt: skip

    def __init__(self, ticket: str, process: int) -> None:
        self.ticket: Final = ticket
        self.process: Final = process
        """Whose gate it leads to: a child process has the socket, but not the gate."""
        self.acting: Acting | None = None
        self.claim: Any = None
        """What the application said of her; opaque here."""
        self.is_opening = True
        """The driver is still finding out whom it speaks to."""
        self.is_resting = True
        """It lies in the pool, which may ask whether it is alive."""
        self.is_seated = False
        """The connection has come to the gate."""
        self.is_spoilt = False
        """It is in the hands of a session that may not have it; good again once given back."""


class NoOne(GateSession):
    """The session of a connection that nobody has: it sees the server's own catalogs alone."""

    def __init__(
        self,
        *,
        session_id: str,
        node: str,
        uid: str,
        in_force: InForce,
        tokens: PatientTokens,
        now: Callable[[], datetime],
    ) -> None:
        nobody = Person(uid, "", "", True)
        super().__init__(
            session_id=session_id,
            name="",
            node=node,
            channel=CHANNEL,
            secret="",
            purpose="",
            in_force=in_force,
            directory=_Only(nobody),
            tokens=tokens,
            now=now,
        )
        self._clock: Final = now
        self._decides: Final = in_force

    def entitlement(self) -> Entitlement:
        """Nothing but the catalogs."""
        decides = self._decides.current
        if self._entitlement is None or decides.point is not self.point:
            self.point, self._source = decides.point, decides.source
            asker = Asker(self.person, (), "")
            self._entitlement = self.point.entitlement(
                asker, {}, at=self._clock(), secret=self._secret
            )
            self._views = _CatalogAlone(self._entitlement, self._source, self.point.data_map.schema)
        return self._entitlement


class _Only:
    """A directory of one."""

    def __init__(self, person: Person) -> None:
        self._person: Final = person

    def person(self, name: str) -> Person | None:
        return self._person

    def is_fresh(self) -> bool:
        return True


class _CatalogAlone(SessionViews):
    """The system catalogs, in which no table of the source appears."""

    def __init__(self, entitlement: Entitlement, source: Source, schema: str) -> None:
        self._entitlement = entitlement
        self._source = source
        self._scene = Scene(tables=(), schemas=(schema,), search_path=(schema,), login="")
        self._system = system_views(self._scene, source.catalog)

    def resolve(self, schema: str | None, name: str) -> TableName:
        if schema in SYSTEM_SCHEMAS or (
            schema is None and TableName("pg_catalog", name) in self._system
        ):
            return super().resolve(schema, name)
        raise NoPersonBound(NO_PERSON)


class SeatSession:
    """What the gate's conversation takes for its session: that of whoever sits there.

    It changes hands when a message comes, never between a statement and what is said of its end:
    the driver has its answer, and may give the connection away, before that is recorded.
    """

    def __init__(self, seat: Seat, nobody: NoOne) -> None:
        self._seat: Final = seat
        self._nobody: Final = nobody
        self._current: GateSession = nobody

    def take(self) -> Acting | None:
        """From here on it is the session of whoever sits there now."""
        acting = self._seat.acting
        self._current = self._nobody if acting is None else acting.session
        return acting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._current, name)

    def plan(self, statement: ParsedStatement) -> Planned:
        """Decide a statement; raises ``NoPersonBound`` for one that nobody answers for."""
        if self._current is self._nobody:
            return self._nobodys(statement)
        planned = self._current.plan(statement)
        if isinstance(planned.step, SetPurpose):
            # Other connections act for the same session, and the application chose its purpose.
            raise Refused("the purpose is the application's to choose: acting_as(…, purpose=…)")
        return planned

    def _nobodys(self, statement: ParsedStatement) -> Planned:
        which, seat = statement.node.WhichOneof("node"), self._seat
        if which == "transaction_stmt" or (seat.is_opening and which in _OPENING):
            return self._nobody.plan(statement)
        if seat.is_resting and which == "select_stmt":
            planned = self._nobody.plan(statement)
            if planned.upstream == _PING:
                return planned
        raise NoPersonBound(NO_PERSON)

    def reset(self) -> None:
        """RESET ALL and DISCARD ALL change nothing here: there is no claim but the first."""

    def as_session(self) -> GateSession:
        return cast(GateSession, self)


def seated(
    session: SeatSession, talk: Generator[Command, Any, str]
) -> Generator[Command, Any, str]:
    """The conversation, with the start of a person's session in the log before her first word."""
    answer: Any = None
    failure: LogUnavailable | None = None
    while True:
        try:
            command = talk.throw(failure) if failure is not None else talk.send(answer)
        except StopIteration as end:
            return str(end.value)
        answer = failure = None
        try:
            answer = yield command
            if isinstance(command, FromClient) and answer is not None:
                acting = session.take()
                if acting is not None and not acting.is_recorded:
                    # Her other connections need not wait: what they record comes after it.
                    acting.is_recorded = True
                    yield Record((acting.started(),))
        except LogUnavailable as exc:
            failure = exc


class People(Protocol):
    """Who people are, as ``ControlPlaneFeed`` tells it."""

    @property
    def snapshot(self) -> Any: ...

    def is_fresh(self, now_monotonic: float) -> bool: ...


__all__ = [
    "CHANNEL",
    "NO_PERSON",
    "AccessEnded",
    "Acting",
    "Directory",
    "NoOne",
    "NoPersonBound",
    "People",
    "Seat",
    "SeatSession",
    "seated",
]
