"""What a pushed version is held against: people, catalog, and the recorded past.

The rule kept: a replay is a reading of the log, so policy decides whether who pushes may read it,
and the question is recorded before the log is read (45 CFR 164.312(b)); what is kept with the
version are counts and roles, no names.
"""

import time
from contextlib import ExitStack
from datetime import UTC, datetime

import psycopg

from chartgate.adapters.audit_desk import READ, READ_TECHNICAL, AuditDesk
from chartgate.adapters.audit_sources import running
from chartgate.adapters.keys import KeyStore, TokenKeys
from chartgate.adapters.policy_in_force import Loaded, load
from chartgate.adapters.replay_log import RecordedPeople, Requests
from chartgate.adapters.source_catalog import read_source
from chartgate.app.policy_bundle import Bundle
from chartgate.app.policy_stages import Candidate
from chartgate.app.replay import Replay
from chartgate.app.replay_report import ReplayReport, replay
from chartgate.app.session_views import Source
from chartgate.app.tokens import PATIENT, PatientTokens
from chartgate.cli.policy_store import Store
from chartgate.errors import Misconfigured
from chartgate.govern.policy_version import POLICIES, Shelf
from chartgate.model.principal import Person


def candidate_of(
    store: Store, subject: str, bundle: Bundle, shelf: Shelf, person: Person, stack: ExitStack
) -> Candidate:
    """The version among everything it is examined with."""
    loaded = store.loaded()
    source = _source(store, loaded, stack)
    return Candidate(
        subject=subject,
        bundle=bundle,
        in_force=store.store.bundle(subject, shelf.active) if shelf.active else None,
        version=loaded.version,
        data_map=loaded.data_map,
        people=tuple(store.control.snapshot().persons.values()),
        at=datetime.now(UTC),
        source=source,
        replay=None
        if source is None
        else lambda: _replay(store, loaded, subject, bundle, source, person),
        clock=time.perf_counter,
    )


def _replay(
    store: Store, loaded: Loaded, subject: str, bundle: Bundle, source: Source, person: Person
) -> ReplayReport:
    """The whole log, decided again under the version."""
    desk = AuditDesk(store.state, store.instance, loaded.point, store.control.snapshot)
    policies = bundle if subject == POLICIES else loaded.version.bundle
    data_map = loaded.map_bundle if subject == POLICIES else bundle
    again = load(policies, data_map, {})
    index = desk.ask(
        person,
        "what a proposed version would have decided",
        lambda _: {"candidate": bundle.hash, "subject": subject},
        actions=(READ, READ_TECHNICAL),
    )
    keys = TokenKeys(KeyStore(store.state.keys_dir), create=False)
    tokens = PatientTokens(keys, store.instance.source)
    people = RecordedPeople(
        store.control.snapshot().persons, lambda key: tokens.all_years(PATIENT, key)
    )
    known = {loaded.point.policies.hash: loaded.point}
    decides = Replay(again.point, again.version.schema, source, known)
    until = decides.until if decides.reads_clock else None
    requests = Requests(people, until=until)
    requests.read(desk.raw_entries(0, index))
    return replay(requests.tallies(), decides.outcome, bundle.hash)


def _source(store: Store, loaded: Loaded, stack: ExitStack) -> Source | None:
    instance = store.instance
    try:
        conninfo = stack.enter_context(
            running(store.state.legacy_pg, instance.legacy, embedded=instance.embedded)
        )
        with psycopg.connect(conninfo, connect_timeout=5) as connection:
            return read_source(connection, loaded.data_map.schema)
    except (psycopg.Error, Misconfigured):
        return None
