"""Where a second person gives somebody access for a time, or ends it.

Rules kept: decide, record, act — the approval is a log entry before it is a row, and the row carries
the entry with its proof, because nodes obey nothing else (``app.grants``); who approves must be
allowed to by the policies in force, and is never the beneficiary; the text is strictly validated
before anything is recorded; an end is recorded, then obeyed everywhere at once (45 CFR
164.308(a)(4)(ii)(C)). What was asked for and refused is recorded as well.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chartgate.adapters.control_plane import ControlPlane, UnknownName
from chartgate.adapters.desk import Desk
from chartgate.adapters.log_proofs import LogProver
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.policy_in_force import Loaded
from chartgate.adapters.state import Instance, State
from chartgate.app.grants import (
    APPROVED,
    REFUSED,
    REVOKED,
    Given,
    Grant,
    NotGrantable,
    check_given,
    check_text,
    content_hash,
    grant_text,
    instant_text,
)
from chartgate.app.policy_orders import Sealed
from chartgate.cedar.parse import policy_set
from chartgate.cedar.validate import validate
from chartgate.errors import ChartgateError, Misconfigured, Refused
from chartgate.model.event import GrantStep
from chartgate.model.principal import Person

APPROVE: Final = "approve_grant"
"""The administrative action that policy must allow."""
_CHANNEL: Final = "grants"

Record = Callable[[GrantStep], Sealed]
"""Puts a step in the log; answers the entry with its proof once it is on the medium."""


class GrantRefused(Refused):
    """Policy does not let this person give or end access; the attempt is in the log."""

    code = "grant_refused"


@dataclass(frozen=True, slots=True)
class Issued:
    """A grant that is in force."""

    id: str
    policy: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Listed:
    """A grant as the table has it."""

    id: str
    beneficiary: str
    """Login name."""
    approver: str
    valid_from: datetime
    valid_until: datetime
    revoked_at: datetime | None
    reason: str
    policy: str


def new_grant_id() -> str:
    """Random, never used again."""
    return f"g_{secrets.token_hex(8)}"


def issue_grant(
    control: ControlPlane,
    record: Record,
    *,
    node: str,
    approver: Person,
    beneficiary: Person,
    grant_id: str,
    policy: str,
    since: datetime,
    until: datetime,
    reason: str,
    at: datetime,
) -> Issued:
    """Record the approval, then file the grant with it. Whether the approver may is not asked here.

    Raises ``NotGrantable`` before anything is recorded.
    """
    if approver.uid == beneficiary.uid:
        raise NotGrantable("nobody approves access for herself")
    if not beneficiary.active:
        raise NotGrantable("the account of the beneficiary is closed")
    try:
        check_text(
            Grant(grant_id, beneficiary.uid, policy, until, Sealed(b"", "")), beneficiary.name
        )
    except ChartgateError as exc:
        raise NotGrantable(f"not a grant: {exc}") from exc
    sealed = record(
        GrantStep(
            at=_stamp(at),
            node=node,
            person=approver.uid,
            step=APPROVED,
            grant=grant_id,
            beneficiary=beneficiary.uid,
            content=content_hash(policy),
            until=instant_text(until),
            reason=reason,
        )
    )
    with control.change() as cursor:
        cursor.execute(
            'INSERT INTO "grant" (id, person_uid, policy, valid_from, valid_until, approved_by, '
            "reason, entry, proof) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                grant_id,
                beneficiary.uid,
                policy,
                since,
                until,
                approver.uid,
                reason,
                sealed.entry,
                sealed.proof,
            ],
        )
    return Issued(grant_id, policy, until)


def revoke_grant(
    control: ControlPlane,
    record: Callable[[GrantStep], object],
    *,
    node: str,
    person: Person,
    grant_id: str,
    reason: str,
    at: datetime,
) -> bool:
    """Record the end, then end it; whether it was still in force. Nodes obey the row unseen."""
    with control.change() as cursor:
        row = cursor.execute(
            'SELECT person_uid, revoked_at FROM "grant" WHERE id = %s', [grant_id]
        ).fetchone()
    if row is None:
        raise UnknownName("there is no such grant")
    if row[1] is not None:
        return False
    record(
        GrantStep(
            at=_stamp(at),
            node=node,
            person=person.uid,
            step=REVOKED,
            grant=grant_id,
            beneficiary=row[0],
            reason=reason,
        )
    )
    with control.change() as cursor:
        cursor.execute(
            'UPDATE "grant" SET revoked_at = %s WHERE id = %s AND revoked_at IS NULL',
            [at, grant_id],
        )
        return cursor.rowcount == 1


class GrantDesk(Desk):
    """One sitting: people sign in, and give or end access as policy lets them."""

    def __init__(
        self,
        state: State,
        instance: Instance,
        loaded: Loaded,
        control: ControlPlane,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(state, instance, loaded.point, control.snapshot, channel=_CHANNEL, now=now)
        self._loaded = loaded
        self._control = control
        self._prover = LogProver(LogReader(state.log_dir))

    def issue(
        self,
        approver: Person,
        beneficiary: str,
        given: Given,
        *,
        until: datetime,
        since: datetime | None = None,
        reason: str,
    ) -> Issued:
        """Give ``beneficiary`` (a login name) what ``given`` says, until then.

        Raises ``GrantRefused``, recorded, or ``NotGrantable``.
        """
        now = self._now()
        since = now if since is None else since
        # Cedar counts in milliseconds: what is said is what is decided by.
        until, since = _whole(until), _whole(since)
        person = self._control.snapshot().persons.get(beneficiary)
        if person is None:
            raise UnknownName("there is no person of that name")
        if until <= now:
            raise NotGrantable("a grant ends in the future")
        grant_id = new_grant_id()
        self._may(approver, grant_id, person.uid, reason)
        check_given(given, self._loaded.version.schema)
        policy = grant_text(grant_id, person.name, given, since=since, until=until)
        checked = check_text(
            Grant(grant_id, person.uid, policy, until, Sealed(b"", "")), person.name
        )
        try:
            validate(policy_set((checked,)), self._loaded.version.schema)
        except Misconfigured as exc:
            raise NotGrantable(f"the policies in force know no such thing: {exc}") from exc
        self._prover.warm()
        return issue_grant(
            self._control,
            self._sealed,
            node=self._instance.node,
            approver=approver,
            beneficiary=person,
            grant_id=grant_id,
            policy=policy,
            since=since,
            until=until,
            reason=reason,
            at=now,
        )

    def revoke(self, person: Person, grant_id: str, *, reason: str) -> bool:
        """End a grant; whether it was still in force. Raises ``GrantRefused``, recorded."""
        self._may(person, grant_id, "", reason)
        return revoke_grant(
            self._control,
            self._append,
            node=self._instance.node,
            person=person,
            grant_id=grant_id,
            reason=reason,
            at=self._now(),
        )

    def list(self) -> tuple[Listed, ...]:
        """All grants, the newest first."""
        with self._control.change() as cursor:
            rows = cursor.execute(
                "SELECT g.id, b.name, a.name, g.valid_from, g.valid_until, g.revoked_at, g.reason, "
                'g.policy FROM "grant" g JOIN person b ON b.uid = g.person_uid '
                "JOIN person a ON a.uid = g.approved_by ORDER BY g.valid_from DESC, g.id"
            ).fetchall()
        return tuple(Listed(*row) for row in rows)

    def _may(self, person: Person, grant_id: str, beneficiary: str, reason: str) -> None:
        current = self._control.snapshot().person_of(person.uid)
        if self._decide(current, (APPROVE,), "")[0]:
            return
        index = self._append(
            GrantStep(
                at=self._at(),
                node=self._instance.node,
                person=person.uid,
                step=REFUSED,
                grant=grant_id,
                beneficiary=beneficiary,
                reason=reason,
            )
        )
        raise GrantRefused(
            f"policy does not let {person.name} give or end access; "
            f"the attempt is recorded as event {index}"
        )

    def _sealed(self, step: GrantStep) -> Sealed:
        index = self._append(step)
        (proven,) = self._prover.prove(index, 1)
        return Sealed(*proven)


def _whole(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
