"""``chartgate policy push, versions, show, approve, activate, rollback, pull, status``.

Rules kept: whoever changes something signs in; what is shown as a version's state is what the log
bears out, and rows that it does not are named; ``activate`` says which nodes took the version.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from chartgate.adapters.audit_sources import running
from chartgate.adapters.control_plane import ControlPlane, open_control_plane
from chartgate.adapters.policy_desk import Done, PolicyDesk, find, inspect_store
from chartgate.adapters.policy_files import read_bundle, read_map_bundle, write_bundle
from chartgate.adapters.policy_in_force import Loaded, load, load_for, trusted_keys
from chartgate.adapters.policy_store import NodeRow, PolicyStore, open_policy_store
from chartgate.adapters.state import Instance, State, default_root
from chartgate.app.map_bundle import subject_of
from chartgate.app.policy_bundle import Bundle
from chartgate.app.policy_shelf import Inspected
from chartgate.app.policy_stages import Candidate, Evidence, Stage
from chartgate.cli import policy_store_render as shown
from chartgate.cli import render
from chartgate.cli.sign_in import actor, password_of
from chartgate.errors import ChartgateError, Misconfigured
from chartgate.govern.policy_version import MAP, POLICIES, Shelf
from chartgate.model.principal import Person

_NODE_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Store:
    """An instance's store, opened."""

    state: State
    instance: Instance
    control: ControlPlane
    store: PolicyStore
    conninfo: str

    @property
    def subjects(self) -> tuple[str, ...]:
        """The policies and this instance's data map first."""
        ours = (POLICIES, f"{MAP}{self.instance.source}")
        return (*ours, *(s for s in self.store.subjects() if s not in ours))

    def inspect(self, subject: str) -> Inspected:
        """The versions of a subject that the log bears out."""
        return inspect_store(self.store, subject, trusted_keys(self.state))

    def names(self) -> dict[str, str]:
        """uid -> full name."""
        return dict(self.control.snapshot().names)

    def version(self, text: str) -> tuple[str, Shelf, str]:
        """(subject, shelf, content hash) of the one version that ``text`` means."""
        if text == "active":
            shelf = self.inspect(POLICIES).shelf
            return POLICIES, shelf, find(shelf, text)
        found, failure = [], None
        for subject in self.subjects:
            shelf = self.inspect(subject).shelf
            try:
                found.append((subject, shelf, find(shelf, text)))
            except Misconfigured as exc:
                failure = failure or exc
        if len(found) > 1:
            raise Misconfigured(f"{text[:64]} means versions of {found[0][0]} and {found[1][0]}")
        if not found:
            raise failure or Misconfigured("there is no version")
        return found[0]

    def loaded(self) -> Loaded:
        """What is in force: here, or newer in the store while no node runs here.

        As nodes do, it stays with what is in force here when what is newer cannot be enforced: else
        nobody could put it right again.
        """
        loaded = load_for(self.state, self.instance)
        bundles = {POLICIES: loaded.version.bundle, self.subjects[1]: loaded.map_bundle}
        for subject in self.subjects[:2]:
            shelf, held = self.inspect(subject).shelf, loaded.held.get(subject)
            if shelf.active and shelf.generation > (held.generation if held else 0):
                bundles[subject] = self.store.bundle(subject, shelf.active)
        policies, data_map = bundles.values()
        try:
            return load(policies, data_map, loaded.held)
        except ChartgateError:
            if not all(subject in loaded.held for subject in bundles):
                raise
            return loaded


@contextmanager
def opened(folder: Path | None) -> Iterator[Store]:
    """The store of a state folder, whether its instance runs or not."""
    state = State((folder or default_root()).absolute())
    instance = state.instance()
    with (
        running(state.control_pg, instance.control, embedded=instance.embedded) as conninfo,
        open_control_plane(conninfo) as control,
        open_policy_store(conninfo) as store,
    ):
        yield Store(state, instance, control, store, conninfo)


@contextmanager
def sitting(folder: Path | None, name: str | None) -> Iterator[tuple[Store, PolicyDesk, Person]]:
    """Somebody signed in at the store."""
    who = actor(name)
    with opened(folder) as store:
        password = password_of(store.state, who)  # may take her a while: what counts is read after
        desk = PolicyDesk(store.state, store.instance, store.loaded(), store.control, store.store)
        yield store, desk, desk.sign_in(who, password)


def push(path: Path, folder: Path | None, name: str | None, note: str, *, json: bool) -> int:
    """File a version and take it through its stages."""
    subject, bundle = _bundle(path)
    with sitting(folder, name) as (store, desk, person), ExitStack() as stack:
        if subject.startswith(MAP) and subject != f"{MAP}{store.instance.source}":
            raise Misconfigured(f"{path} maps another source than {store.instance.source}")
        stages: list[dict[str, Any]] = []
        progress = shown.Progress(None if json else render.console())

        def tell(stage: Stage, evidence: Evidence | None) -> None:
            progress(stage, evidence)
            if evidence is not None:
                stages.append(
                    {
                        "stage": stage.title,
                        "step": stage.step,
                        "passed": evidence.passed,
                        "summary": evidence.summary,
                    }
                )

        from chartgate.cli.policy_candidate import candidate_of

        def surroundings(bundle: Bundle, shelf: Shelf) -> Candidate:
            return candidate_of(store, subject, bundle, shelf, person, stack)

        progress.begin(subject, bundle)
        try:
            done = desk.push(
                person, subject, bundle, note=note, surroundings=surroundings, progress=tell
            )
        finally:
            progress.stop()
            if json and stages and not stages[-1]["passed"]:
                render.print_json({"subject": subject, "hash": bundle.hash, "stages": stages})
    if json:
        render.print_json(
            {"subject": subject, "hash": bundle.hash, "state": done.state, "stages": stages}
        )
    else:
        progress.end(done)
    return 0


def versions(folder: Path | None, *, json: bool) -> int:
    """Every version, newest first; 1 when a row is not borne out by the log."""
    with opened(folder) as store:
        inspected = {subject: store.inspect(subject) for subject in store.subjects}
        names = store.names()
    if json:
        render.print_json(
            {subject: shown.versions_json(one, names) for subject, one in inspected.items()}
        )
    else:
        shown.show_versions(render.console(), inspected, names)
    return 1 if any(one.doubts for one in inspected.values()) else 0


def show(text: str, folder: Path | None, *, json: bool) -> int:
    """One version: its steps, who and when, and what each stage found."""
    with opened(folder) as store:
        subject, shelf, content = store.version(text)
        inspected, names = store.inspect(subject), store.names()
        reports = {
            inspected.logged[row.id].index: msgspec.json.decode(report)
            for row in store.store.steps(subject)
            if row.content == content
            and row.id in inspected.logged
            and row.has_report
            and (report := store.store.report(row.id)) is not None
            and shown.is_reported(inspected.logged[row.id].event, report)
        }
    version = shelf.versions[content]
    steps = [
        one
        for one in inspected.logged.values()
        if content in {one.event.content, one.event.previous}
    ]
    if json:
        render.print_json(shown.version_json(subject, shelf, version, steps, reports, names))
    else:
        shown.show_version(render.console(), subject, shelf, version, steps, reports, names)
    return 0


def decide(
    verb: str, text: str, folder: Path | None, name: str | None, reason: str, *, json: bool
) -> int:
    """Approve, refuse or withdraw a version."""
    with sitting(folder, name) as (store, desk, person):
        subject, _, content = store.version(text)
        step = {"approve": desk.approve, "refuse": desk.refuse, "withdraw": desk.withdraw}[verb]
        done = step(person, subject, content, reason=reason)
    _tell(done, json=json)
    return 0


def activate(text: str, folder: Path | None, name: str | None, reason: str, *, json: bool) -> int:
    """Put an approved version in force, and see the nodes take it."""
    with sitting(folder, name) as (store, desk, person):
        subject, _, content = store.version(text)
        done = desk.activate(person, subject, content, reason=reason)
        taken = _taken(store.store, done)
    _tell(done, taken, json=json)
    return 0


def roll_back(
    folder: Path | None, name: str | None, reason: str, *, is_map: bool, json: bool
) -> int:
    """Put in force what was before."""
    with sitting(folder, name) as (store, desk, person):
        done = desk.roll_back(person, store.subjects[is_map], reason=reason)
        taken = _taken(store.store, done)
    _tell(done, taken, json=json)
    return 0


def pull(text: str, target: Path, folder: Path | None, *, json: bool) -> int:
    """The files of a version, into an empty folder."""
    with opened(folder) as store:
        subject, _, content = store.version(text)
        bundle = store.store.bundle(subject, content)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Misconfigured(f"{target} is not an empty folder: nothing is overwritten")
    write_bundle(bundle, target)
    if json:
        render.print_json(
            {
                "subject": subject,
                "hash": content,
                "files": list(bundle.files),
                "folder": str(target),
            }
        )
    else:
        render.console().print(f"{len(bundle.files)} files of {subject} {content[:12]} in {target}")
    return 0


def status(folder: Path | None, *, json: bool) -> int:
    """What each node has in force; 1 when one does not have what it should."""
    with opened(folder) as store:
        nodes = store.store.nodes()
        is_up = store.state.log_socket.exists()
        shelves = {subject: store.inspect(subject).shelf for subject in store.subjects}
    # What a node says is hearsay: it may name what nobody ever heard of.
    behind = [
        n for n in nodes if n.subject not in shelves or shelves[n.subject].active != n.content
    ]
    if json:
        render.print_json(
            {
                "in_force": {
                    subject: {"hash": shelf.active, "generation": shelf.generation}
                    for subject, shelf in shelves.items()
                },
                "instance_running": is_up,
                "nodes": [shown.node_json(node, shelves.get(node.subject)) for node in nodes],
            }
        )
    else:
        shown.show_status(render.console(), shelves, nodes, is_up=is_up)
    return 1 if behind else 0


def _bundle(path: Path) -> tuple[str, Bundle]:
    if path.is_file():
        bundle = read_map_bundle(path)
        return subject_of(bundle), bundle
    return POLICIES, read_bundle(path)


def _taken(store: PolicyStore, done: Done) -> list[tuple[NodeRow, float | None]]:
    """Which node has it in force, and how many seconds after it was recorded."""
    known = {n.node for n in store.nodes() if n.subject == done.event.subject}
    recorded = datetime.fromisoformat(done.event.at)
    end = time.monotonic() + _NODE_SECONDS
    while True:
        nodes = [n for n in store.nodes() if n.subject == done.event.subject and n.node in known]
        late = [n for n in nodes if n.generation < done.event.generation]
        if not late or time.monotonic() > end:
            return [(n, None if n in late else (n.since - recorded).total_seconds()) for n in nodes]
        time.sleep(_POLL_SECONDS)


def _tell(
    done: Done, taken: list[tuple[NodeRow, float | None]] | None = None, *, json: bool
) -> None:
    if json:
        render.print_json(shown.done_json(done, taken))
    else:
        shown.show_done(render.console(), done, taken)
