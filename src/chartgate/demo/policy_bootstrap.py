"""The demo's first version: what shipped with the software, approved by two of its people.

The rule kept: a node obeys nothing but what two persons put in force, and the log says honestly that
this first time it was the program that acted for them (``shipped``, ``bootstrap``). A version that
people put in force themselves is never replaced by a newer one that ships.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import chartgate
from chartgate.adapters.log_proofs import prove_entries
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.policy_desk import inspect_store
from chartgate.adapters.policy_in_force import trusted_keys
from chartgate.adapters.policy_store import PolicyStore, open_policy_store
from chartgate.adapters.state import State
from chartgate.app.policy_bundle import Bundle
from chartgate.app.policy_orders import Sealed
from chartgate.app.policy_shelf import taken_of
from chartgate.govern.policy_version import Shelf, Step
from chartgate.model.event import PolicyStep, encode

PROPOSER: Final = "sofficer"
APPROVER: Final = "pofficer"


async def bootstrap(
    state: State,
    node: str,
    conninfo: str,
    log: LogWriter,
    shipped: Mapping[str, Bundle],
    uids: Mapping[str, str],
) -> None:
    """Put what shipped in force, subject by subject, where nothing else is."""
    for subject, bundle in shipped.items():
        shelf = await asyncio.to_thread(_before, state, conninfo, subject)
        if shelf is None or shelf.active == bundle.hash:
            continue
        active = shelf.versions.get(shelf.active)
        if active is not None and not active.is_shipped:
            continue
        events = _events(node, shelf, bundle, uids)
        first = await log.append([encode(event) for event in events])
        await asyncio.to_thread(_file, state, conninfo, subject, bundle, events, first)


def _before(state: State, conninfo: str, subject: str) -> Shelf | None:
    """The shelf; None when its rows are not believed, which the keeper has to tell."""
    with open_policy_store(conninfo) as store:
        inspected = inspect_store(store, subject, trusted_keys(state))
    return None if inspected.doubts else inspected.shelf


def _events(node: str, shelf: Shelf, bundle: Bundle, uids: Mapping[str, str]) -> list[PolicyStep]:
    proposer, approver = uids[PROPOSER], uids[APPROVER]
    software = f"chartgate {chartgate.__version__}"
    shipped = {"bootstrap": f"shipped with {software}", "against": shelf.active}
    taken = (
        (Step.PUSHED, proposer, 0, "", {"bootstrap": software}),
        (Step.SHIPPED, proposer, 0, "", shipped),
        (Step.APPROVED, approver, 0, "", {"bootstrap": software}),
        (Step.ACTIVATED, approver, shelf.generation + 1, shelf.active, {"bootstrap": software}),
    )
    events = []
    for step, person, generation, previous, detail in taken:
        event = PolicyStep(
            at=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            node=node,
            person=person,
            step=step.value,
            subject=shelf.subject,
            content=bundle.hash,
            proposer=proposer,
            generation=generation,
            previous=previous,
            detail=detail,
        )
        shelf = shelf.on(taken_of(event))
        events.append(event)
    return events


def _file(
    state: State,
    conninfo: str,
    subject: str,
    bundle: Bundle,
    events: list[PolicyStep],
    first: int,
) -> None:
    proofs = prove_entries(LogReader(state.log_dir), first, len(events))
    with open_policy_store(conninfo) as store, store.exclusively():
        _add(store, subject, bundle, events, proofs)


def _add(
    store: PolicyStore,
    subject: str,
    bundle: Bundle,
    events: list[PolicyStep],
    proofs: list[tuple[bytes, str]],
) -> None:
    store.add_bundle(subject, bundle)
    for event, proof in zip(events, proofs, strict=True):
        store.add_step(
            subject, bundle.hash, Step(event.step), Sealed(*proof), generation=event.generation
        )
