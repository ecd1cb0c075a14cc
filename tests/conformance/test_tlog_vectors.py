"""The vectors of others, byte for byte: C2SP notes, RFC 6962 roots, an example log, 196 proofs."""

import json
import tarfile
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chartgate.errors import ChartgateError
from chartgate.tlog import checkpoint, note, proof, tile, tree

SHARED = Path(__file__).resolve().parents[3] / "shared" / "conformance" / "tlog"

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no ../shared beside this checkout: no transparency-log vectors"
)


@pytest.fixture(scope="module")
def vectors() -> dict:
    return json.loads((SHARED / "tlog_vectors.json").read_text(encoding="utf-8"))


def proofs(kind: str) -> list:
    if not SHARED.is_dir():
        return []
    with tarfile.open(SHARED / "merkle-testdata.tar.gz") as archive:
        return [
            pytest.param(json.load(archive.extractfile(member)), id=member.name.split("/", 1)[1])
            for member in archive.getmembers()
            if member.name.startswith(f"merkle-testdata/{kind}/") and member.name.endswith(".json")
        ]


def raw(text: str | None) -> bytes:
    return b64decode(text or "")


def test_signed_notes_of_others_open_and_print_back(vectors):
    assert len(vectors["signed_note"]) == 2
    for case in vectors["signed_note"]:
        key = note.VerifierKey.parse(case["vkey"])
        assert str(key) == case["vkey"]
        opened = note.open_note(case["note"], [key])
        assert [vouched.key for vouched in opened.signatures] == [key]
        assert case["note"].startswith(opened.text + "\n— ")


def test_a_note_of_others_with_any_byte_changed_is_rejected(vectors):
    for case in vectors["signed_note"]:
        key, data = note.VerifierKey.parse(case["vkey"]), case["note"].encode()
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 0x01
            with pytest.raises((ChartgateError, UnicodeDecodeError)):
                note.open_note(bytes(changed).decode(), [key])


def test_rfc_6962_roots_of_every_prefix(vectors):
    leaves = [tree.leaf_hash(bytes.fromhex(x)) for x in vectors["rfc6962_roots"]["leaves_hex"]]
    roots = vectors["rfc6962_roots"]["root_hex_by_size"]
    assert [tree.tree_root(leaves[:n]).hex() for n in range(9)] == roots


def test_tile_numbers_are_spelled_in_groups_of_three(vectors):
    for index, path in vectors["tile_index_paths"].items():
        assert tile.tile_path(0, int(index)) == f"tile/0/{path}"
        assert tile.bundle_path(int(index), 7) == f"tile/entries/{path}.p/7"


def test_the_example_log_is_made_again_with_its_signatures(vectors):
    log = vectors["example_log"]
    secret = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(log["log_seed_hex"]))
    witness = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(log["witness_seed_hex"]))
    key = note.VerifierKey.parse(log["log_vkey"])
    witness_key = note.VerifierKey.parse(log["witness_vkey"])
    assert key.public == secret.public_key().public_bytes_raw()
    assert witness_key.public == witness.public_key().public_bytes_raw()
    grown = tree.Frontier()
    for state in log["trees"]:
        new = (sha256(b"\0leaf %d" % i).digest() for i in range(grown.size, state["size"]))
        grown = grown.extend(new)
        assert grown.root().hex() == state["root_hex"]
        mine = checkpoint.Checkpoint(log["log_origin"], grown.size, grown.root())
        text = checkpoint.sign_checkpoint(mine, key, secret.sign)
        text = note.add_cosignature(text, witness_key, witness.sign, time=log["cosignature_time"])
        assert text == state["cosigned_checkpoint"]
        assert checkpoint.open_checkpoint(text, key, [witness_key]) == mine
        assert checkpoint.peek(text) == mine
        times = [v.time for v in note.open_note(text, [key, witness_key]).signatures]
        assert times == [None, log["cosignature_time"]]
        widths = {str(level): tile.partial_width(level, grown.size) for level in range(4)}
        assert {k: w for k, w in widths.items() if w} == state["partial_tiles"]


@pytest.mark.parametrize("case", proofs("inclusion"))
def test_inclusion_proofs_of_others(case):
    def verify() -> None:
        proof.verify_inclusion(
            [raw(h) for h in case["proof"] or []],
            index=case["leafIdx"],
            size=case["treeSize"],
            leaf=raw(case["leafHash"]),
            root=raw(case["root"]),
        )

    _expect(case, verify)


@pytest.mark.parametrize("case", proofs("consistency"))
def test_consistency_proofs_of_others(case):
    def verify() -> None:
        proof.verify_consistency(
            [raw(h) for h in case["proof"] or []],
            old_size=case["size1"],
            new_size=case["size2"],
            old_root=raw(case["root1"]),
            new_root=raw(case["root2"]),
        )

    _expect(case, verify)


def _expect(case: dict, verify) -> None:
    if case["wantErr"]:
        with pytest.raises(proof.BadProof):
            verify()
    else:
        verify()
