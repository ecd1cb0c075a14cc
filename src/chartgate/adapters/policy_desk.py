"""Where people decide what is in force: sign in, be allowed by policy, be recorded, then it happens.

Rules kept: every step is a log entry before it is a row, and the row carries the entry with its
proof (decide, record, act); a step that was asked for and refused is recorded as well; who may act
is asked of the policies in force; the state of a version is read from proven rows alone; one step
at a time, whoever else is at work; a sitting ends when another version comes into force, because it
was that version's policies that let her. An approval counts for as long as the approver may approve:
when it is put in force, she is asked for again. What nodes could not enforce with what else is in
force is not put in force.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from chartgate.adapters.audit_desk import read_event
from chartgate.adapters.control_plane import ControlPlane
from chartgate.adapters.control_plane_snapshot import RoleRecord
from chartgate.adapters.desk import Desk
from chartgate.adapters.log_proofs import LogProver
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.policy_in_force import Loaded, load, trusted_keys
from chartgate.adapters.policy_store import PolicyStore
from chartgate.adapters.state import Instance, State
from chartgate.app.policy_bundle import Bundle, roles_of
from chartgate.app.policy_orders import Sealed
from chartgate.app.policy_shelf import Filed, Inspected, inspect, taken_of
from chartgate.app.policy_stages import Candidate, Evidence, Stage, examine, stages_of
from chartgate.app.rolebook import RoleBook
from chartgate.errors import ChartgateError, Corrupt, Misconfigured, Refused
from chartgate.govern.policy_version import MAP, POLICIES, RULES, IllegalStep, Shelf, Step
from chartgate.govern.policy_version import State as Where
from chartgate.model.event import PolicyStep, PolicyStepRefused
from chartgate.model.principal import Person

_CHANNEL: Final = "policy store"
_MIN_PREFIX: Final = 8


class PolicyRefused(Refused):
    """Policy does not let this person take the step; the attempt is in the log."""

    code = "policy_refused"


class StageFailed(Refused):
    """The version did not pass a stage; it stays a draft."""

    code = "stage_failed"


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was taken."""

    event: PolicyStep
    index: int
    state: Where


class PolicyDesk(Desk):
    """One sitting over the store. What a person does is checked against ``loaded``, in force."""

    def __init__(
        self,
        state: State,
        instance: Instance,
        loaded: Loaded,
        control: ControlPlane,
        store: PolicyStore,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(state, instance, loaded.point, control.snapshot, channel=_CHANNEL, now=now)
        self._loaded = loaded
        self._store = store
        self._control = control
        self._keys = trusted_keys(state)
        self._log = LogReader(state.log_dir)
        self._prover = LogProver(self._log)
        self._generations = self._generations_now()

    def inspect(self, subject: str) -> Inspected:
        """All versions of a subject, from the rows that the log bears out."""
        return inspect_store(self._store, subject, self._keys)

    def push(
        self,
        person: Person,
        subject: str,
        bundle: Bundle,
        *,
        note: str = "",
        surroundings: Callable[[Bundle, Shelf], Candidate],
        progress: Callable[[Stage, Evidence | None], None] = lambda _stage, _evidence: None,
    ) -> Done:
        """File a draft and take it through every stage; raises ``StageFailed`` at the first that
        it does not pass."""
        self._may(person, Step.PUSHED, subject, bundle.hash)
        self._store.add_bundle(subject, bundle)
        done = self._take(
            person, subject, bundle.hash, Step.PUSHED, detail={"note": note} if note else {}
        )
        candidate = surroundings(bundle, self.inspect(subject).shelf)
        for stage in stages_of(subject):
            progress(stage, None)
            evidence = examine(stage, candidate)
            progress(stage, evidence)
            report = _report(evidence)
            if not evidence.passed:
                reason = "; ".join((evidence.summary, *evidence.report.get("lines", ())))
                self._refuse(person, stage.step, subject, bundle.hash, reason)
                raise StageFailed(
                    f"{bundle.hash[:12]} did not pass ({stage.title}: {evidence.summary}): "
                    "it stays a draft"
                )
            detail = {"summary": evidence.summary[:2_000], "report": _sha256(report)}
            if stage.step is Step.COMPARED:
                before = candidate.in_force
                detail["against"] = "" if before is None else before.hash
            done = self._take(
                person, subject, bundle.hash, stage.step, detail=detail, report=report
            )
        return done

    def approve(self, person: Person, subject: str, content: str, *, reason: str = "") -> Done:
        """A second person says yes."""
        return self._decided(person, subject, content, Step.APPROVED, reason)

    def refuse(self, person: Person, subject: str, content: str, *, reason: str = "") -> Done:
        """A second person says no."""
        return self._decided(person, subject, content, Step.REFUSED, reason)

    def withdraw(self, person: Person, subject: str, content: str, *, reason: str = "") -> Done:
        """Who proposed it takes it back."""
        return self._decided(person, subject, content, Step.WITHDRAWN, reason)

    def activate(self, person: Person, subject: str, content: str, *, reason: str = "") -> Done:
        """Put an approved version in force on every node."""
        return self._decided(person, subject, content, Step.ACTIVATED, reason)

    def roll_back(self, person: Person, subject: str, *, reason: str = "") -> Done:
        """Put in force what was before."""
        before = self.inspect(subject).shelf.before
        if not before:
            raise IllegalStep("there is nothing to roll back to")
        return self._decided(person, subject, before, Step.ROLLED_BACK, reason)

    def _decided(self, person: Person, subject: str, content: str, step: Step, reason: str) -> Done:
        self._may(person, step, subject, content)
        return self._take(
            person, subject, content, step, detail={"reason": reason} if reason else {}
        )

    def _may(self, person: Person, step: Step, subject: str, content: str) -> None:
        """Raise ``PolicyRefused``, recorded, unless the policies in force allow her the step."""
        current = self._people().person_of(person.uid)  # names may change hands
        if self._decide(current, (RULES[step].permission,), "")[0]:
            return
        reason = f"policy does not let this person {_WORDS[RULES[step].permission]}"
        index = self._refuse(person, step, subject, content, reason)
        raise PolicyRefused(
            f"policy does not let {person.name} {_WORDS[RULES[step].permission]}; "
            f"the attempt is recorded as event {index}"
        )

    def _take(
        self,
        person: Person,
        subject: str,
        content: str,
        step: Step,
        *,
        detail: dict[str, str],
        report: str | None = None,
    ) -> Done:
        """Decide, record, act: in one transaction of the store, so that steps come one by one."""
        is_order = step in {Step.ACTIVATED, Step.ROLLED_BACK}
        unfit = self._unfit(subject, content) if is_order else None
        self._prover.warm()  # before the entry: from then on every node is waiting
        with self._store.exclusively():
            inspected = self.inspect(subject)
            shelf = inspected.shelf
            self._check_nothing_is_lost(subject, shelf)
            self._may(person, step, subject, content)  # she may have been asked for long ago
            version = shelf.versions.get(content)
            event = PolicyStep(
                at=self._at(),
                node=self._instance.node,
                person=person.uid,
                step=step.value,
                subject=subject,
                content=content,
                proposer=version.proposer if version is not None else "",
                generation=shelf.generation + 1 if is_order else 0,
                previous=shelf.active if is_order else "",
                detail=detail,
            )
            content_now = self._store.bundle(subject, content)  # raises when it was swapped
            try:
                after = shelf.on(taken_of(event))
                if step is Step.ACTIVATED:
                    self._check_approval_stands(shelf, content)
                    self._check_nothing_was_taken_out(inspected, subject, content)
                if unfit is not None:
                    raise unfit
                if self._generations_now() != self._generations:
                    raise IllegalStep(
                        "another version came into force since you signed in: sign in again"
                    )
            except IllegalStep as exc:
                self._refuse(person, step, subject, content, str(exc))
                raise
            index = self._append(event)
            (sealed,) = self._prover.prove(index, 1)
            self._store.add_step(
                subject,
                content,
                step,
                Sealed(*sealed),
                generation=event.generation,
                report=report,
            )
        if is_order and subject == POLICIES:
            keep_roles(self._control, roles_of(content_now))
        return Done(event, index, after.versions[content].state)

    def _check_approval_stands(self, shelf: Shelf, content: str) -> None:
        approver = shelf.versions[content].approver
        found = self._people().person_of(approver)
        if not self._decide(found, (RULES[Step.APPROVED].permission,), "")[0]:
            raise IllegalStep(
                f"who approved {content[:12]} may no longer approve: it needs another approval"
            )

    def _unfit(self, subject: str, content: str) -> IllegalStep | None:
        """Why no node could enforce it with the map, or the policies, in force; usually nothing."""
        bundle = self._store.bundle(subject, content)
        is_policies = subject == POLICIES
        try:
            load(
                bundle if is_policies else self._loaded.version.bundle,
                self._loaded.map_bundle if is_policies else bundle,
                {},
            )
        except ChartgateError as exc:
            other = "data map" if is_policies else "policies"
            return IllegalStep(f"{content[:12]} does not go with the {other} in force: {exc}")
        return None

    def _generations_now(self) -> tuple[int, ...]:
        subjects = (POLICIES, f"{MAP}{self._instance.source}")
        return tuple(self.inspect(subject).shelf.generation for subject in subjects)

    def _check_nothing_is_lost(self, subject: str, shelf: Shelf) -> None:
        held = self._loaded.held.get(subject)
        if held is not None and held.generation > shelf.generation:
            raise Corrupt(
                f"the control plane has lost steps: generation {held.generation} of {subject} is "
                f"in force here, but the store knows {shelf.generation}"
            )

    def _check_nothing_was_taken_out(
        self, inspected: Inspected, subject: str, content: str
    ) -> None:
        """What this node's log knows of the version since its approval, the store knows too: a
        refusal whose row was deleted has been said all the same."""
        ours = {one.index for one in inspected.logged.values() if one.log == self._instance.origin}
        approvals = [
            one.index
            for one in inspected.logged.values()
            if (one.log, one.event.content, one.event.step)
            == (self._instance.origin, content, Step.APPROVED)
        ]
        if not approvals:  # recorded by another node, in its log
            return
        for index, entry in self._log.entries(max(approvals) + 1):
            if index in ours or content.encode() not in entry:
                continue
            event = read_event(index, entry)
            if isinstance(event, PolicyStep) and (event.subject, event.content) == (
                subject,
                content,
            ):
                raise IllegalStep(
                    f"the control plane has lost a step: {content[:12]} was "
                    f"{event.step.replace('_', ' ')} as event {index} of the log; push it again"
                )

    def _refuse(self, person: Person, step: Step, subject: str, content: str, reason: str) -> int:
        return self._append(
            PolicyStepRefused(
                at=self._at(),
                node=self._instance.node,
                person=person.uid,
                step=step.value,
                subject=subject,
                content=content,
                reason=reason[:2_000],
            )
        )


_WORDS: Final = {
    "edit_policy": "propose a version",
    "approve_policy": "decide on a version",
    "activate_policy": "put a version in force",
}


def keep_roles(control: ControlPlane, book: RoleBook) -> None:
    """The roles of a version, so that they can be assigned; one that is gone stays, without rules:
    somebody may have held it."""
    roles = {
        role.name: RoleRecord(
            role.name, role.title, role.default_purpose or None, role.purposes, role.parents
        )
        for role in book.roles.values()
    }
    control.set_roles({**control.snapshot().roles, **roles}.values())


def inspect_store(store: PolicyStore, subject: str, keys: Any) -> Inspected:
    """The rows of a subject, held against the log's keys."""
    rows = store.steps(subject)
    filed = (Filed(r.id, r.content, r.step, r.generation, r.sealed) for r in rows)
    return inspect(filed, subject, keys)


def find(shelf: Shelf, text: str) -> str:
    """The content hash that ``text`` means: ``active``, a whole hash or its first eight digits."""
    if text == "active":
        if not shelf.active:
            raise Misconfigured(f"no version of {shelf.subject} is in force")
        return shelf.active
    wanted = text.lower()
    if len(wanted) < _MIN_PREFIX or not set(wanted) <= set("0123456789abcdef"):
        raise Misconfigured("a version is named by at least 8 digits of its hash, or 'active'")
    found = [content for content in shelf.versions if content.startswith(wanted)]
    if len(found) != 1:
        raise Misconfigured(
            f"{len(found) or 'no'} version{'s' if len(found) > 1 else ''} of {shelf.subject} "
            f"begin{'' if len(found) > 1 else 's'} with {wanted[:64]}"
        )
    return found[0]


def _report(evidence: Evidence) -> str:
    return msgspec.json.encode(dict(evidence.report), enc_hook=str).decode()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
