"""Where people read the audit log: sign in, be allowed by policy, be recorded, then see.

Rules kept: reading the log is an access like any other (45 CFR 164.312(b), 164.308(a)(1)(ii)(D));
the question is on disk before a line of the answer is shown, and so is a question that was refused
and a sign-in that failed; a question in the log holds tokens and uids, never a number that
somebody typed. Whoever cannot be recorded is not answered.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from chartgate.adapters.control_plane_snapshot import ControlPlaneSnapshot
from chartgate.adapters.desk import Desk, is_password, password_in
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.state import Instance, State
from chartgate.app.entitlement import DecisionPoint
from chartgate.errors import Corrupt, Refused
from chartgate.model.event import VERSION, AuditRead, Event, decode
from chartgate.model.principal import Person

__all__ = ["AuditDesk", "AuditRefused", "is_password", "password_in", "read_event"]

READ = "read_audit"
READ_TECHNICAL = "read_audit_technical"

_CHANNEL = "audit"


class AuditRefused(Refused):
    """Policy does not let this person read the log; the attempt is in it."""

    code = "audit_refused"


class AuditDesk(Desk):
    """One sitting over one log. ``now`` answers the time in UTC."""

    def __init__(
        self,
        state: State,
        instance: Instance,
        point: DecisionPoint,
        people: Callable[[], ControlPlaneSnapshot],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(state, instance, point, people, channel=_CHANNEL, now=now)
        self._reader = LogReader(state.log_dir)

    def allows(self, person: Person, action: str = READ, *, purpose: str = "") -> bool:
        """Whether policy lets the person read now: for following, where time passes."""
        return self._decide(self._people().persons.get(person.name), (action,), purpose)[0]

    def ask(
        self,
        person: Person,
        question: str,
        parameters: Callable[[bool], dict[str, str]],
        *,
        actions: tuple[str, ...] = (READ,),
        purpose: str = "",
    ) -> int:
        """Decide and record the question; answers its log index: read entries before that.

        One of ``actions`` must be allowed. ``parameters`` is told the decision and answers what is
        recorded of the question. Raises ``AuditRefused`` after a refusal was recorded.
        """
        allowed, determining = self._decide(person, actions, purpose)
        found = parameters(allowed)
        index = self._append(
            AuditRead(
                at=self._at(),
                node=self._instance.node,
                person=person.uid,
                question=question,
                allowed=allowed,
                parameters=found,
                determining=determining,
                policy_set=self._point.policies.hash,
            )
        )
        if not allowed:
            claimed = f" for the purpose {purpose}" if purpose else ""
            raise AuditRefused(
                f"policy does not let {person.name} read the audit log{claimed}; "
                f"the attempt is recorded as event {index}"
            )
        return index

    @property
    def size(self) -> int:
        """How many entries the log has now."""
        return self._reader.size

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Event]]:
        """The events from ``start`` to before ``stop``. Ask first."""
        for index, entry in self._reader.entries(start, stop):
            yield index, read_event(index, entry)

    def raw_entries(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """The same, for a reader that takes only what it needs from each. Ask first."""
        return self._reader.entries(start, stop)

    def names(self) -> dict[str, str]:
        """uid -> full name of a person, or name of an application, for showing."""
        people = self._people()
        services = {uid: service.name for uid, service in people.services.by_uid.items()}
        return {**people.names, **services}

    def uid_of(self, name: str) -> str | None:
        """The uid behind a login name."""
        person = self._people().persons.get(name)
        return None if person is None else person.uid


def read_event(index: int, entry: bytes) -> Event:
    """The event of a log entry; raises ``Corrupt`` for what this program does not understand."""
    try:
        event = decode(entry)
    except msgspec.MsgspecError:
        raise Corrupt(f"log entry {index} is not an event this program knows") from None
    if event.version > VERSION:
        raise Corrupt(
            f"log entry {index} has version {event.version}; this program knows {VERSION}"
        )
    return event
