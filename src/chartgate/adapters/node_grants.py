"""A node's side of grants: what the control plane lists is verified, then obeyed; ends at once.

Rules kept: nothing is granted before its approval was verified against the log (``app.grants``), in a
worker thread; the end of a grant, of her account, or of the name that it was given to, needs no
evidence and no thread; a row that does not verify is an alarm, once. What was ended stays ended: a
row that comes back (``revoked_at`` taken away, a backup restored) is an alarm too.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from chartgate.adapters.control_plane_snapshot import EVERYTHING, ControlPlaneSnapshot, GrantRow
from chartgate.adapters.node_rulings import Alarmed, RulingsInForce
from chartgate.app.grants import Grant, GrantNotObeyed, check_grant
from chartgate.app.policy_orders import Sealed
from chartgate.cedar.ast import Policy
from chartgate.tlog.note import VerifierKey

_MOST_ALARMS: Final = 20
_AT_ONCE: Final = 64
_LOOK_SECONDS: Final = 60.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Case:
    """A row to verify, for whoever it is for now."""

    row: GrantRow
    name: str


class GrantKeeper:
    """Keeps the grants of a node's rulings as the control plane has them, as far as they verify."""

    def __init__(
        self,
        keys: Sequence[VerifierKey],
        in_force: RulingsInForce,
        people: Callable[[], ControlPlaneSnapshot],
        alarmed: Alarmed,
    ) -> None:
        self._keys: Final = keys
        self._in_force: Final = in_force
        self._people: Final = people
        self._alarmed: Final = alarmed
        self._held: dict[str, _Case] = {}
        """Verified and in force, and for whom."""
        self._of_person: dict[str, set[str]] = {}
        """uid -> the grants that the control plane listed for her."""
        self._seen: set[str] = set()
        """Ids that were ever listed."""
        self._over: set[str] = set()
        """Those of them that were not any more: their approval verifies for all time."""
        self._told: set[str] = set()
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Verify what is listed, then follow."""
        self.on_change(replace(self._people(), changed=EVERYTHING))
        while self._waiting:
            await self._verify_some()
        self._task = asyncio.create_task(self._follow(), name="grants")

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def on_change(self, people: ControlPlaneSnapshot) -> None:
        """The control plane changed: end what is over now, verify what is new soon."""
        changed = people.changed
        if changed.everything:
            touched = self._seen | set(people.grants)
            self._of_person.clear()
        else:
            touched = set(changed.grants)
            # whoever lost a name has another, which is among the names
            for name in changed.names if self._of_person else ():
                person = people.persons.get(name)
                if person is not None:
                    touched |= self._of_person.get(person.uid, set())
        over = []
        for number in touched:
            row = people.grants.get(number)
            self._note(number, row)
            if row is not None:
                self._of_person.setdefault(row.person_uid, set()).add(number)
            elif (before := self._held.get(number)) is not None:
                self._of_person.get(before.row.person_uid, set()).discard(number)
            held, case = self._held.get(number), self._case(people, row)
            if held is not None and held != case:
                del self._held[number]
                over.append(number)
            if case is not None and number not in self._held:
                self._waiting[number] = None
        if over:
            self._in_force.end(over)
        if self._waiting:
            self._wake.set()

    def _note(self, number: str, row: GrantRow | None) -> None:
        if row is not None:
            self._seen.add(number)
            if number in self._over and number not in self._told:
                self._told.add(number)
                self._alarmed(
                    "revived_grant", f"grant {number} was ended and is listed again: not obeyed"
                )
        elif number in self._seen:
            self._over.add(number)

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                # not wait_for: before Python 3.12 a cancellation in the instant of a wake is lost
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            self._drop_expired()
            while self._waiting:
                try:
                    await self._verify_some()
                except Exception:
                    # Whatever it is, it must not keep the next grant from being looked at.
                    _logger.exception("grants cannot be verified; none of these is in force")

    async def _verify_some(self) -> None:
        listed = list(self._waiting)[:_AT_ONCE]
        for number in listed:
            del self._waiting[number]
        people = self._people()
        cases = [
            case
            for number in listed
            if (case := self._case(people, people.grants.get(number))) is not None
        ]
        found, refused = await asyncio.to_thread(self._verified, cases)
        people = self._people()
        good = {}
        for case in cases:
            policy = found.get(case.row.id)
            if policy is None:
                continue
            if self._case(people, people.grants.get(case.row.id)) == case:
                self._held[case.row.id] = case
                good[case.row.id] = policy
            else:
                self._waiting[case.row.id] = None
        self._in_force.settle(good)
        self._in_force.end(found.keys() - good.keys())
        for words in refused[:_MOST_ALARMS]:
            self._alarmed("forged_grant", words)
        if (more := len(refused) - _MOST_ALARMS) > 0:
            self._alarmed("forged_grant", f"{more} more grants are refused")

    def _drop_expired(self) -> None:
        """They allow nothing any more; this is about room."""
        now = datetime.now(UTC)
        over = [n for n, case in self._held.items() if case.row.valid_until <= now]
        for number in over:
            uid = self._held.pop(number).row.person_uid
            self._of_person.get(uid, set()).discard(number)
        self._in_force.end(over)

    def _case(self, people: ControlPlaneSnapshot, row: GrantRow | None) -> _Case | None:
        person = None if row is None else people.person_of(row.person_uid)
        if row is None or row.id in self._over or person is None or not person.active:
            return None
        return _Case(row, person.name)

    # In a worker thread.

    def _verified(self, cases: Sequence[_Case]) -> tuple[dict[str, Policy], list[str]]:
        found: dict[str, Policy] = {}
        refused: list[str] = []
        for case in cases:
            row = case.row
            grant = Grant(
                row.id, row.person_uid, row.policy, row.valid_until, Sealed(row.entry, row.proof)
            )
            try:
                found[row.id] = check_grant(grant, case.name, self._keys)
            except GrantNotObeyed as exc:
                mark = _mark(row)
                if mark not in self._told:
                    self._told.add(mark)
                    refused.append(
                        f"the control plane lists a grant for {row.person_uid}, which is refused: "
                        f"{exc}"
                    )
        self._in_force.adopt(found)
        return found, refused


def _mark(row: GrantRow) -> str:
    text = f"{row.id}\n{row.person_uid}\n{row.policy}\n{row.valid_until}\n{row.proof}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass") + row.entry).hexdigest()
