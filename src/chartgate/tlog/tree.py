"""The Merkle tree of RFC 6962 §2.1 with SHA-256: hashing and the growing right edge.

Rules kept: leaves and nodes hash under different prefixes (0x00, 0x01), so neither can pass for
the other; the empty tree has the root SHA-256(""); a tree splits at the largest power of two
below its size, which is why the frontier (one perfect subtree for each set bit of the size) is
all that is needed to append and to know the root.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from chartgate.errors import Refused

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """MTH({d0}) = SHA-256(0x00 || d0)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree reduced to its perfect subtrees, largest (leftmost) first. Appending gives a new one."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> "Frontier":
        """The tree with one more leaf *hash*."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> "Frontier":
        """The tree with these leaf hashes appended in order."""
        size, peaks = self.size, list(self.peaks)
        for node in leaves:
            carry = size
            while carry & 1:
                node = sha256(b"\x01" + peaks.pop() + node).digest()
                carry >>= 1
            peaks.append(node)
            size += 1
        return Frontier(size, tuple(peaks))

    def append_subtree(self, root: bytes, leaves: int) -> "Frontier":
        """The tree with a perfect subtree of ``leaves`` leaves appended, known by its root alone."""
        if leaves < 1 or leaves & (leaves - 1):
            raise Refused("a subtree to append holds a power of two of leaves")
        if self.size % leaves:
            raise Refused(f"a subtree of {leaves} leaves cannot start at leaf {self.size}")
        carry, peaks = self.size // leaves, list(self.peaks)
        while carry & 1:
            root = node_hash(peaks.pop(), root)
            carry >>= 1
        return Frontier(self.size + leaves, (*peaks, root))

    def root(self) -> bytes:
        """MTH of all leaves appended so far."""
        if not self.peaks:
            return EMPTY_ROOT
        *rest, node = self.peaks
        for left in reversed(rest):
            node = node_hash(left, node)
        return node


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """MTH over these leaf hashes."""
    return Frontier().extend(leaves).root()


def split(size: int) -> int:
    """The largest power of two smaller than ``size`` (RFC 6962 §2.1: k < n <= 2k)."""
    if size < 2:
        raise Refused("a tree of fewer than two leaves does not split")
    return 1 << ((size - 1).bit_length() - 1)
