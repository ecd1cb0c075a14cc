"""Where people read the audit log: sign in, be allowed by policy, be recorded, then see.

Rules kept: reading the log is an access like any other (45 CFR 164.312(b), 164.308(a)(1)(ii)(D));
the question is on disk before a line of the answer is shown, and so is a question that was refused
and a sign-in that failed; a question in the log holds tokens and uids, never a number that
somebody typed. Whoever cannot be recorded is not answered.
"""

import hmac
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from chartgate.adapters.control_plane_snapshot import ControlPlaneSnapshot
from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.log_socket import NoGateway, append_through
from chartgate.adapters.signing import load_or_create_signer
from chartgate.adapters.state import Instance, State
from chartgate.app.entitlement import DecisionPoint
from chartgate.errors import Corrupt, Misconfigured, Refused
from chartgate.model.event import (
    VERSION,
    AuditRead,
    Event,
    LoginRefused,
    Recovered,
    decode,
    encode,
)
from chartgate.model.principal import Person
from chartgate.pgwire.scram import AuthenticationFailed, Verifier, mint_verifier

READ = "read_audit"
READ_TECHNICAL = "read_audit_technical"

_CHANNEL = "audit"


class AuditRefused(Refused):
    """Policy does not let this person read the log; the attempt is in it."""

    code = "audit_refused"


class AuditDesk:
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
        self._state = state
        self._instance = instance
        self._point = point
        self._people = people
        self._now = now
        self._reader = LogReader(state.log_dir)

    def sign_in(self, name: str, password: str) -> Person:
        """The person behind name and password; raises ``AuthenticationFailed``, recorded."""
        people = self._people()
        person = people.persons.get(name)
        credential = people.credential(name, at=self._now())
        if credential is not None and is_password(password, credential.scram_verifier):
            assert person is not None
            return person
        if credential is None:  # as slow as a wrong password
            mint_verifier(password, salt=secrets.token_bytes(16))
        self._append(
            LoginRefused(
                at=self._at(),
                node=self._instance.node,
                login="unknown" if person is None else person.uid,
                channel=_CHANNEL,
                reason="no valid credential" if credential is None else "wrong password",
            )
        )
        raise AuthenticationFailed

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

    def names(self) -> dict[str, str]:
        """uid -> full name, for showing."""
        return dict(self._people().names)

    def uid_of(self, name: str) -> str | None:
        """The uid behind a login name."""
        person = self._people().persons.get(name)
        return None if person is None else person.uid

    def _decide(
        self, person: Person | None, actions: tuple[str, ...], purpose: str
    ) -> tuple[bool, tuple[str, ...]]:
        if person is None:
            return False, ()
        at = self._now()
        live = person.live(at=at) if person.active else ()
        claimed = purpose or self._point.roles.default_purpose(live) or ""
        try:
            asker = self._point.asker(person, claimed, at=at)
        except Refused:  # no live role may act for that purpose
            return False, ()
        determining: tuple[str, ...] = ()
        for action in actions:
            answer = self._point.may(asker, action, at=at)
            if answer.allowed:
                return True, answer.determining
            determining = determining or answer.determining
        return False, determining

    def _append(self, event: AuditRead | LoginRefused) -> int:
        entry = encode(event)
        try:
            return append_through(self._state.log_socket, [entry])
        except NoGateway:
            return self._append_directly(entry)

    def _append_directly(self, entry: bytes) -> int:
        """No gateway runs: hold the log open for one entry. The log's own lock arbitrates."""
        if not self._state.log_key.exists():
            raise Misconfigured(f"there is no audit log in {self._state.root}")
        torn: list[tuple[int, str]] = []
        signer = load_or_create_signer(self._state.log_key, self._instance.origin)
        with LogFiles.open(
            self._state.log_dir,
            signer,
            on_recovered=lambda dropped, digest: torn.append((dropped, digest)),
        ) as log:
            for dropped, digest in torn:
                recovered = Recovered(
                    at=self._at(),
                    node=self._instance.node,
                    dropped_bytes=dropped,
                    dropped_sha256=digest,
                    size=log.size,
                )
                log.append([encode(recovered)])
            return log.append([entry]).first_index

    def _at(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


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


def is_password(password: str, verifier: str) -> bool:
    """Whether the password is the one behind a SCRAM verifier (RFC 5802)."""
    stored = Verifier.parse(verifier)
    minted = mint_verifier(password, salt=stored.salt, iterations=stored.iterations)
    return hmac.compare_digest(minted, verifier)


def password_in(passfile: Path, name: str) -> str | None:
    """The first password that libpq's passfile (``host:port:database:user:password``) has for
    ``name``; a file that others can read is not used, as libpq does not."""
    try:
        if passfile.stat().st_mode & 0o077:
            return None
        lines = passfile.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        fields = _fields(line)
        if len(fields) == 5 and fields[3] == name:
            return fields[4]
    return None


def _fields(line: str) -> list[str]:
    fields = [""]
    escaped = False
    for char in line:
        if escaped or (char not in ":\\"):
            fields[-1] += char
            escaped = False
        elif char == "\\":
            escaped = True
        elif len(fields) < 5:
            fields.append("")
        else:
            fields[-1] += char
    return [] if line.startswith("#") else fields
