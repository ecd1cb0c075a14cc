"""SQLAlchemy 2 through the gate: every statement of an engine is a person's, or is refused.

Rules kept: whatever way SQL takes to the driver (ORM, lazy and eager loads, Core, ``text``,
``exec_driver_sql``, a raw cursor), it is rewritten with the residuals of the person for whom the
session acts, recorded with its patients before a row comes back, and refused where the gateway would
refuse; nobody bound means nothing asked. One session is one person's.

Why the pool's connections lead through the gate's own conversation, in this process, and not ORM
events that add criteria: criteria reach mapped selects, but neither ``text`` nor a raw cursor, nor
the patients of an aggregate, and a hook on ``before_cursor_execute`` would have to do a second time
(hidden key columns, key queries in one snapshot, parameters of three drivers, sync and async,
errors that quote values) what the gateway does already. Here the two cannot differ, since they are one.

    protect(engine, at_state())
    with acting_as("nadams"), Session(engine) as session:
        session.scalars(select(Patient)).all()
"""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

try:
    import sqlalchemy as sa
    from sqlalchemy import event
    from sqlalchemy.orm import Session
    from sqlalchemy.orm.session import SessionTransaction
    from sqlalchemy.pool import NullPool
except ImportError as exc:  # pragma: no cover - the optional extra is installed for tests
    raise ImportError("this module needs SQLAlchemy: chartgate[sqlalchemy]") from exc

from chartgate.errors import Misconfigured, Refused
from chartgate.sdk import asked
from chartgate.sdk.errors import NotIdentified
from chartgate.sdk.questions import subject_of
from chartgate.sdk.sqlalchemy_door import PORT
from chartgate.sdk.sqlalchemy_gate import EmbeddedGate, Opener
from chartgate.sdk.sqlalchemy_seat import NoPersonBound, Seat
from chartgate.sdk.sqlalchemy_source import at_state

DRIVERS: Final = frozenset({"psycopg", "asyncpg"})
_SEAT: Final = "chartgate.seat"
_CLAIM: Final = "chartgate.person"
_KEPT: Final = frozenset(
    {
        "autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory",
        "application_name", "connect_timeout", "timeout", "command_timeout", "options",
        "prepared_statement_cache_size", "prepared_statement_name_func", "statement_cache_size",
        "server_settings", "async_fn", "async_creator_fn", "connection_class",
    }
)  # fmt: skip
"""Arguments of a driver's ``connect`` that do not say whither or as whom."""


class Claim(NamedTuple):
    """For whom a session acts, and what for; an empty purpose is the default of her role."""

    person: str
    purpose: str = ""


class OtherPerson(Refused):
    """A session that is one person's was used for another."""

    code = "other_person"


_acting: ContextVar[Claim | None] = ContextVar("chartgate_sqlalchemy", default=None)


def current() -> Claim | None:
    """The person of this context: ``acting_as``, else whoever makes the request being served."""
    claim = _acting.get()
    if claim is not None:
        return claim
    request = asked.current()
    if request is None:
        return None
    try:
        who = subject_of(request.who())
    except NotIdentified:
        return None
    if who.type != "User":
        raise OtherPerson("rows are shown to people: the request's subject is no User")
    return Claim(who.id, request.purpose)


@contextmanager
def acting_as(person: str, purpose: str = "", *, session: Any = None) -> Iterator[None]:
    """Work for a person: everything begun inside is hers. With ``session``, that session is too.

    Raises ``OtherPerson`` where somebody else's work is still going on.
    """
    claim = Claim(person, purpose)
    if session is not None:
        bind(session, person, purpose)
    token = _acting.set(claim)
    try:
        yield
    finally:
        _acting.reset(token)


def bind(session: Any, person: str, purpose: str = "") -> None:
    """Give a session to a person, once and for all. Takes ``Session`` and ``AsyncSession``."""
    claim, info = Claim(person, purpose), session.info
    held = info.get(_CLAIM)
    if held is not None and held.claim != claim:
        raise OtherPerson("this session is another person's, or another purpose's: open a new one")
    inner = getattr(session, "sync_session", session)
    if held is None and (inner.in_transaction() or len(inner.identity_map)):
        raise OtherPerson("this session was used before it was bound to a person")
    info[_CLAIM] = _Held(claim, for_good=True)


class _Held(NamedTuple):
    claim: Claim
    for_good: bool


class ProtectedSession(Session):
    """A session of one person. Also what it has loaded is handed out to nobody else.

    ``sessionmaker(engine, class_=ProtectedSession)``; ``AsyncSession(sync_session_class=…)``.
    """

    def __init__(self, bind: Any = None, *, person: str = "", purpose: str = "", **kw: Any) -> None:
        super().__init__(bind, **kw)
        if person:
            _bind(self, person, purpose)

    def get(self, *args: Any, **kw: Any) -> Any:
        """As in ``Session``: an object that is loaded already is given to its own person alone."""
        _check_holder(self.info)
        return super().get(*args, **kw)

    def merge(self, *args: Any, **kw: Any) -> Any:
        """As in ``Session``, and as ``get``: what is loaded already is what comes back."""
        _check_holder(self.info)
        return super().merge(*args, **kw)

    def __iter__(self) -> Iterator[object]:
        """What is loaded, for the session's own person."""
        _check_holder(self.info)
        return super().__iter__()


_bind = bind


def _check_holder(info: MutableMapping[Any, Any]) -> None:
    held, now = info.get(_CLAIM), current()
    if held is not None and now is not None and now != held.claim:
        raise OtherPerson("this session is another person's, or another purpose's: open a new one")


class Protection:
    """The gate of an engine. ``close`` ends it: then the engine reaches nothing."""

    def __init__(self, engine: sa.Engine, opener: Opener, application: str) -> None:
        self.engine: Final = engine
        self.gate: Final = EmbeddedGate(opener, application=application)
        self._url: Final = engine.url

    def close(self) -> None:
        """End every connection and the gate."""
        self.engine.dispose()
        self.gate.close()

    @contextmanager
    def unprotected(self, *, person: str, reason: str) -> Iterator[sa.Engine]:
        """An engine past the gate, for migrations: recorded with who does it and why."""
        if not reason.strip():
            raise Refused("work that goes past the gate needs a reason")
        self.gate.start()
        started, ended = self.gate.outside(person, reason)
        self.gate.note(started)
        url = self._url.set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, poolclass=NullPool)
        try:
            yield engine
        finally:
            engine.dispose()
            self.gate.note(ended)

    # What the engine's events call.

    def connecting(self, dialect: sa.Dialect, record: Any, cargs: Any, cparams: Any) -> None:
        """A new connection of the pool: it is to lead to the gate."""
        seat = self.gate.seat()
        record.info[_SEAT] = seat
        kept = {name: value for name, value in cparams.items() if name in _KEPT}
        cparams.clear()
        cparams.update(kept, host=self.gate.host, port=PORT, user=seat.ticket)
        if dialect.driver == "asyncpg":
            cparams.update(database=self.gate.database, ssl=False)
        else:
            # What the environment says (PGHOSTADDR, PGSSLMODE …) does not count here.
            cparams.update(
                dbname=self.gate.database, hostaddr="", sslmode="disable", gssencmode="disable",
                password="",
            )  # fmt: skip
        del cargs[:]

    def connected(self, dbapi: Any, record: Any) -> None:
        """The driver has found out what it wants to know of the server."""
        seat = record.info.get(_SEAT)
        if not isinstance(seat, Seat) or not seat.is_seated:
            raise Misconfigured(
                "a connection did not come through the gate: an engine with a creator or a pool "
                "of its own cannot be protected"
            )
        seat.is_opening = False

    def checked_out(self, dbapi: Any, record: Any, proxy: Any) -> None:
        """Somebody takes a connection from the pool."""
        seat = record.info.get(_SEAT)
        if not isinstance(seat, Seat) or not seat.is_seated or seat.is_opening:
            raise Misconfigured("a connection of this pool does not lead through the gate")
        if seat.process != os.getpid():
            # It leads to the gate of the process that this one was forked from.
            record.dbapi_connection = proxy.dbapi_connection = None
            raise sa.exc.DisconnectionError("the connection is the parent process's")
        seat.is_resting = False
        claim = current()
        if claim is not None:
            self.give(seat, claim)

    def given_back(self, dbapi: Any, record: Any) -> None:
        """The connection is nobody's until it is taken again."""
        seat = record.info.get(_SEAT)
        if isinstance(seat, Seat):
            seat.claim, seat.is_spoilt, seat.is_resting = None, False, True
            self.gate.leave(seat)

    def resetting(self, dbapi: Any, record: Any, state: Any) -> None:
        """Whatever the pool was told of resets: no transaction goes on for the next person."""
        if not state.terminate_only:
            dbapi.rollback()

    def give(self, seat: Seat, claim: Claim) -> None:
        """A connection that is nobody's, or this person's, is this person's."""
        if seat.is_spoilt or (seat.claim is not None and seat.claim != claim):
            raise OtherPerson("this connection is another person's: take a new one")
        self.gate.sit(seat, claim.person, claim.purpose)
        seat.claim = claim

    def executing(self, connection: sa.Connection, *_: Any) -> None:
        """A statement: of the person whose connection it is, in nobody else's name."""
        seat = connection.info.get(_SEAT)
        if not isinstance(seat, Seat):
            raise Misconfigured("a connection of this pool does not lead through the gate")
        now = current()
        if seat.is_spoilt or (seat.claim is not None and now is not None and now != seat.claim):
            raise OtherPerson("this connection is another person's: take a new one")
        if seat.claim is None and now is not None:
            self.give(seat, now)
        if now is not None:
            asked.mark()  # what the request is answered with was asked for


_protections: dict[int, Protection] = {}
"""By the identity of the dialect, which every engine of a family shares."""


def protect(engine: Any, opener: Opener, *, application: str = "") -> Protection:
    """From here on every connection of ``engine`` leads through the gate.

    Takes ``Engine`` and ``AsyncEngine`` of PostgreSQL (psycopg 3, asyncpg). Raises ``Misconfigured``
    for others, and for one that has connections in use.
    """
    inner: sa.Engine = getattr(engine, "sync_engine", engine)
    if (
        inner.dialect.name != "postgresql"
        or inner.dialect.driver.removesuffix("_async") not in DRIVERS
    ):
        raise Misconfigured("the gate speaks PostgreSQL with psycopg or asyncpg")
    if id(inner.dialect) in _protections:
        raise Misconfigured("this engine is protected already")
    in_use = getattr(inner.pool, "checkedout", lambda: 0)()
    if in_use:
        raise Misconfigured(f"the engine has {in_use} connections in use: protect it first")
    inner.dispose()  # connections from before led past the gate
    made = Protection(inner, opener, application)
    event.listen(inner, "do_connect", made.connecting)
    event.listen(inner, "connect", made.connected)
    event.listen(inner, "checkout", made.checked_out)
    event.listen(inner, "checkin", made.given_back)
    event.listen(inner, "reset", made.resetting)
    event.listen(inner, "before_cursor_execute", made.executing)
    _protections[id(inner.dialect)] = made
    if not event.contains(Session, "after_begin", _begun):
        event.listen(Session, "after_begin", _begun)
    return made


def _begun(session: Session, transaction: SessionTransaction, connection: sa.Connection) -> None:
    """A session, of whatever class, has a connection: it is its person's before the first word."""
    made = _protections.get(id(connection.dialect))
    if made is None:
        return
    seat = connection.info.get(_SEAT)
    if not isinstance(seat, Seat):
        raise Misconfigured("a connection of this pool does not lead through the gate")
    try:
        claim = _claim_of(session)
        if claim is not None:
            made.give(seat, claim)
    except BaseException:
        # The session keeps the connection for all that: it must be of no use to it.
        seat.is_spoilt = True
        made.gate.leave(seat)
        raise


def _claim_of(session: Session) -> Claim | None:
    """For whom the session acts in the transaction that begins; nobody: what is asked is refused."""
    held: _Held | None = session.info.get(_CLAIM)
    now = current()
    if held is None or (
        # A session that holds nothing of the one may serve the other.
        now not in {None, held.claim}
        and not (held.for_good or len(session.identity_map) or session.new)
    ):
        if now is not None:
            session.info[_CLAIM] = _Held(now, for_good=False)
        return now
    if now not in {None, held.claim}:
        raise OtherPerson("this session is another person's, or another purpose's: open a new one")
    return held.claim


__all__ = [
    "Claim",
    "NoPersonBound",
    "OtherPerson",
    "ProtectedSession",
    "Protection",
    "acting_as",
    "at_state",
    "bind",
    "current",
    "protect",
]
