"""The store's tables on a real PostgreSQL: kept for good, read back by hash, within bounds."""

import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_proofs import prove_entries
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.policy_files import read_map_bundle
from chartgate.adapters.policy_store import (
    ForgedContent,
    NodeRow,
    PolicyStore,
    open_policy_store,
)
from chartgate.adapters.signing import load_or_create_signer
from chartgate.app.map_bundle import subject_of
from chartgate.app.policy_bundle import Bundle
from chartgate.app.policy_orders import Sealed
from chartgate.errors import Misconfigured, Refused
from chartgate.govern.policy_version import Step
from chartgate.tlog.note import VerifierKey
from chartgate.tlog.proof_text import LogProof

pytestmark = pytest.mark.system

BUNDLE = Bundle(
    {"a.cedar": "permit (principal, action, resource);\n", "ä/b.toml": "x = '\u2028'\n"}
)


@pytest.fixture(scope="module")
def conninfo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("store") / "pg") as server:
        yield server.conninfo("postgres", server.superuser)


@pytest.fixture
def store(conninfo: str) -> Iterator[PolicyStore]:
    with open_policy_store(conninfo) as made:
        yield made


@pytest.fixture
def sql(conninfo: str) -> Iterator[Callable[..., Any]]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        yield connection.execute


def test_what_was_filed_is_read_back_by_its_hash(store: PolicyStore) -> None:
    store.add_bundle("policies", BUNDLE)
    store.add_bundle("policies", BUNDLE)
    assert store.bundle("policies", BUNDLE.hash) == BUNDLE
    with pytest.raises(ForgedContent, match="no content"):
        store.bundle("map:hospital", BUNDLE.hash)


BOMB = zlib.compress(b'{"a":"' + b"x" * (64 << 20) + b'"}')
OTHER = zlib.compress(msgspec.json.encode({"a.cedar": "forbid (principal, action, resource);"}))


@pytest.mark.parametrize(
    "content",
    [OTHER, BOMB, b"", b"not zlib", zlib.compress(b"[1]"), zlib.compress(b"\xff"), OTHER + b"x"],
    ids=["other files", "a bomb", "empty", "not packed", "a list", "not text", "trailing bytes"],
)
def test_content_that_is_not_what_its_hash_says_is_never_handed_out(
    store: PolicyStore, sql: Callable[..., Any], content: bytes
) -> None:
    digest = f"{zlib.crc32(content):064x}"
    sql(
        "INSERT INTO policy_bundle (subject, hash, content) VALUES ('policies', %s, %s)",
        [digest, content],
    )
    with pytest.raises(ForgedContent):
        store.bundle("policies", digest)


def test_steps_come_back_in_their_order_with_their_reports(store: PolicyStore) -> None:
    store.add_bundle("policies", BUNDLE)
    for number, step in enumerate((Step.PUSHED, Step.VALIDATED, Step.APPROVED, Step.ACTIVATED)):
        store.add_step(
            "policies",
            BUNDLE.hash,
            step,
            Sealed(b"entry %d" % number, f"proof {number}"),
            generation=7 if step is Step.ACTIVATED else 0,
            report="{}" if step is Step.VALIDATED else None,
        )
    rows = store.steps("policies")
    assert [row.step for row in rows] == ["pushed", "validated", "approved", "activated"]
    assert [row.has_report for row in rows] == [False, True, False, False]
    assert store.report(rows[1].id) == "{}"
    assert store.report(rows[0].id) is None
    assert [row.generation for row in store.orders("policies", above=6, since=1 << 62)] == [7]
    assert store.orders("policies", above=7, since=rows[-1].id) == []
    assert [row.id for row in store.orders("policies", above=7, since=rows[0].id)] == [rows[-1].id]
    assert store.approvals("policies", BUNDLE.hash) == [rows[2]]
    assert store.approved_last("policies") == rows[2]
    assert store.holds("policies", rows[3].sealed)
    assert not store.holds("policies", Sealed(b"entry 3", "another proof"))


def test_a_step_raises_the_epoch_and_names_it_in_its_notification(
    store: PolicyStore, conninfo: str
) -> None:
    store.add_bundle("policies", BUNDLE)
    with psycopg.connect(conninfo, autocommit=True) as listener:
        listener.execute("LISTEN chartgate")
        store.add_step("policies", BUNDLE.hash, Step.PUSHED, Sealed(b"e", "p"))
        (notice,) = listener.notifies(timeout=5, stop_after=1)
        row = listener.execute("SELECT value FROM state WHERE key = 'epoch'").fetchone()
    assert row is not None
    assert notice.payload == f"policy_step {row[0]}"


def test_what_a_node_says_is_its_newest_word(store: PolicyStore) -> None:
    for generation in (1, 2):
        at = datetime(2026, 1, generation, tzinfo=UTC)
        store.set_node(NodeRow("n1", "policies", BUNDLE.hash, generation, at))
    assert [row.generation for row in store.nodes()] == [2]


def test_a_version_and_a_step_are_kept_for_good(
    store: PolicyStore, sql: Callable[..., Any]
) -> None:
    store.add_bundle("policies", BUNDLE)
    for text in (
        "UPDATE policy_bundle SET content = ''",
        "DELETE FROM policy_bundle",
        "UPDATE policy_step SET generation = 99",
        "DELETE FROM policy_step",
        "TRUNCATE policy_step",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation):
            sql(text)


# --- proofs from a log that grows, rolls and packs -------------------------------------------------


@pytest.mark.parametrize("entries", [1, 2, 3, 255, 256, 257, 600, 1300])
def test_every_entry_of_a_log_can_be_proved_wherever_it_lies(tmp_path: Path, entries: int) -> None:
    """Segments of 512 entries: some of the log is packed, some is not."""
    signer = load_or_create_signer(tmp_path / "log.key", "test.example/log")
    key = VerifierKey.parse(signer.vkey)
    with LogFiles.open(tmp_path / "log", signer, segment_leaves=512) as log:
        log.append([b"entry %d" % number for number in range(entries)])
        reader = LogReader(tmp_path / "log")
        chosen = sorted({0, 1, 254, 255, 256, 511, 512, 513, entries - 1} & set(range(entries)))
        for index in chosen:
            ((entry, text),) = prove_entries(reader, index, 1)
            proof = LogProof.parse(text)
            assert entry == b"entry %d" % index
            assert proof.index == index
            assert proof.verify(entry, [key]).size == entries
        with pytest.raises(Refused):
            prove_entries(reader, entries, 1)


def test_a_data_map_is_read_with_the_code_sets_it_names_and_nothing_else(
    project_root: Path,
) -> None:
    bundle = read_map_bundle(project_root / "maps" / "hospital.toml")
    assert subject_of(bundle) == "map:hospital"
    assert "codesets/hospital_sud.txt" in bundle.files
    assert "smart-r4.toml" not in bundle.files
    with pytest.raises(Misconfigured):
        read_map_bundle(project_root / "maps" / "absent.toml")
