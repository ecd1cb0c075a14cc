"""The tree against RFC 6962's recursive definition, written down once more and slowly."""

from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chartgate.errors import Refused
from chartgate.tlog.proof import (
    BadProof,
    consistency_proof,
    inclusion_proof,
    subtrees_of,
    verify_consistency,
    verify_inclusion,
)
from chartgate.tlog.tree import Frontier, leaf_hash, tree_root

ENTRIES = [b"entry %d" % i for i in range(600)]
HASHES = [leaf_hash(entry) for entry in ENTRIES]
SUBTREE = subtrees_of(HASHES)


def mth(entries: list[bytes]) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\0" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return sha256(b"\1" + mth(entries[:k]) + mth(entries[k:])).digest()


sizes = st.integers(1, len(ENTRIES))


@given(st.lists(st.binary(max_size=40), max_size=80), st.data())
def test_a_frontier_grown_in_any_steps_has_the_root_of_the_definition(entries, data):
    grown, at = Frontier(), 0
    while at < len(entries):
        step = data.draw(st.integers(1, len(entries) - at))
        grown = grown.extend(map(leaf_hash, entries[at : at + step]))
        at += step
        assert grown.root() == mth(entries[:at])
        assert grown.size == at
        assert len(grown.peaks) == at.bit_count()


@pytest.mark.parametrize("size", [1, 2, 3, 127, 128, 255, 256, 257, 511, 512, 513])
def test_roots_around_the_width_of_a_tile(size):
    assert tree_root(HASHES[:size]) == mth(ENTRIES[:size])


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537])
def test_roots_around_the_size_of_a_segment(size):
    entries = [b"%d" % i for i in range(size)]
    assert tree_root([leaf_hash(entry) for entry in entries]) == mth(entries)


@given(sizes, st.data())
@example(256, None)
@example(257, None)
def test_every_inclusion_proof_verifies_and_no_other(size, data):
    index = size - 1 if data is None else data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, SUBTREE)
    root = mth(ENTRIES[:size])
    good = {"index": index, "size": size, "leaf": HASHES[index], "root": root}
    verify_inclusion(proof, **good)
    for change in (
        {"index": index + 1},
        {"index": size},
        {"leaf": bytes(32)},
        {"root": bytes(32)},
        {"leaf": b"short"},
    ):
        with pytest.raises(BadProof):
            verify_inclusion(proof, **{**good, **change})
    for other in ((*proof, bytes(32)), proof[1:], proof[:-1], (bytes(32), *proof)):
        if other != proof:
            with pytest.raises(BadProof):
                verify_inclusion(other, **good)


@given(sizes, sizes)
@example(256, 512)
@example(255, 257)
@example(1, 600)
def test_every_consistency_proof_verifies_and_no_other(one, other):
    old, new = sorted((one, other))
    proof = consistency_proof(old, new, SUBTREE)
    good = {
        "old_size": old,
        "new_size": new,
        "old_root": mth(ENTRIES[:old]),
        "new_root": mth(ENTRIES[:new]),
    }
    verify_consistency(proof, **good)
    for change in (
        {"old_size": 0},
        {"old_root": bytes(32)},
        {"new_root": bytes(32)},
        {"old_size": new + 1},
    ):
        with pytest.raises(BadProof):
            verify_consistency(proof, **{**good, **change})
    for changed in ((*proof, bytes(32)), proof[1:], proof[:-1]):
        if changed != proof:
            with pytest.raises(BadProof):
                verify_consistency(changed, **good)
    for at in range(len(proof)):
        with pytest.raises(BadProof):
            verify_consistency((*proof[:at], bytes(32), *proof[at + 1 :]), **good)


def test_proofs_of_nothing_are_not_made():
    for index, size in ((0, 0), (3, 3), (-1, 3)):
        with pytest.raises(Refused):
            inclusion_proof(index, size, SUBTREE)
    for old, new in ((0, 3), (4, 3), (0, 0)):
        with pytest.raises(Refused):
            consistency_proof(old, new, SUBTREE)
