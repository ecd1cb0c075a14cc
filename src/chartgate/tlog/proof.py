"""Inclusion and consistency proofs of RFC 6962 §2.1.1-2.1.2, verified as in RFC 9162 §2.1.3-2.1.4.

Rules kept: a verifier raises and never answers False, so no caller can forget to look; a proof of
consistency with the empty tree proves nothing (every tree extends it) and is refused; a proof
must be used up exactly, so that nothing rides along.

Building asks for subtree hashes through a function, so that a log of any size serves proofs from
tiles; ``subtrees_of`` gives that function for leaf hashes held in memory.
"""

from collections.abc import Callable, Sequence
from hmac import compare_digest

from chartgate.errors import Corrupt, Refused
from chartgate.tlog.tree import HASH_SIZE, node_hash, split, tree_root

SubtreeHash = Callable[[int, int], bytes]
"""(start, end) -> MTH(D[start:end]), end exclusive."""


class BadProof(Corrupt):
    """A proof does not show what it is claimed to show."""

    code = "bad_proof"


def subtrees_of(leaves: Sequence[bytes]) -> SubtreeHash:
    """Subtree hashes from leaf hashes in memory."""

    def subtree(start: int, end: int) -> bytes:
        return tree_root(leaves[start:end])

    return subtree


def inclusion_proof(index: int, size: int, subtree: SubtreeHash) -> tuple[bytes, ...]:
    """PATH(index, D[size]): hashes from the leaf's sibling up to the root."""
    if not 0 <= index < size:
        raise Refused(f"leaf {index} is not in a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + split(end - start)
        if index < middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_proof(old: int, new: int, subtree: SubtreeHash) -> tuple[bytes, ...]:
    """PROOF(old, D[new]): shows that the tree of ``new`` leaves extends the tree of ``old``."""
    if not 0 < old <= new:
        raise Refused(f"no consistency proof from size {old} to size {new}")
    path: list[bytes] = []
    start, end = 0, new
    while old < end:
        middle = start + split(end - start)
        if old <= middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    if start > 0:  # a left edge that is the old tree itself is known to the verifier
        path.append(subtree(start, end))
    return tuple(reversed(path))


def verify_inclusion(
    proof: Sequence[bytes], *, index: int, size: int, leaf: bytes, root: bytes
) -> None:
    """Raise unless the leaf *hash* ``leaf`` is at ``index`` in the tree of ``size`` and ``root``."""
    if not 0 <= index < size:
        raise BadProof(f"leaf {index} is not in a tree of {size}")
    _check_hashes((leaf, *proof))
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise BadProof("the inclusion proof is too long")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise BadProof("the inclusion proof is too short")
    if not compare_digest(node, root):
        raise BadProof("the inclusion proof leads to another root")


def verify_consistency(
    proof: Sequence[bytes], *, old_size: int, new_size: int, old_root: bytes, new_root: bytes
) -> None:
    """Raise unless the tree (new_size, new_root) extends the tree (old_size, old_root)."""
    if old_size < 1:
        raise BadProof("consistency with the empty tree proves nothing")
    if old_size > new_size:
        raise BadProof(f"a tree of {new_size} cannot extend a tree of {old_size}")
    _check_hashes(proof)
    if old_size == new_size:
        if proof:
            raise BadProof("a consistency proof between equal sizes is empty")
        if not compare_digest(old_root, new_root):
            raise BadProof("two different roots for one size")
        return
    if not proof:
        raise BadProof("the consistency proof is empty")
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise BadProof("the consistency proof is too long")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise BadProof("the consistency proof is too short")
    if not compare_digest(old, old_root):
        raise BadProof("the consistency proof does not lead to the old root")
    if not compare_digest(new, new_root):
        raise BadProof("the consistency proof does not lead to the new root")


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(one) != HASH_SIZE for one in hashes):
        raise BadProof("a hash in a proof has 32 bytes")
