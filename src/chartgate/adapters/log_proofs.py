"""Inclusion proofs from a log directory, while its writer appends.

The rule kept: what is handed out was computed from the entries themselves and verifies under the
checkpoint that stands in it; whole bundles of packed segments give their roots, so that a proof
from a long log does not read the log.
"""

from functools import cached_property

from chartgate.adapters.log_reader import LogReader
from chartgate.errors import Refused
from chartgate.tlog.proof import inclusion_proof
from chartgate.tlog.proof_text import LogProof
from chartgate.tlog.tile import TILE_WIDTH
from chartgate.tlog.tree import leaf_hash, node_hash, split, tree_root


def prove_entries(log: LogReader, first: int, count: int) -> list[tuple[bytes, str]]:
    """Entries with the texts of their proofs (c2sp.org/tlog-proof), under the newest checkpoint."""
    size, checkpoint = log.head()
    if first < 0 or first + count > size:
        raise Refused(f"entry {first + count - 1} is not in a log of {size}")
    tree = _Tree(log, size)
    found = dict(log.entries(first, first + count))
    return [
        (
            found[index],
            str(LogProof(index, inclusion_proof(index, size, tree.subtree), checkpoint)),
        )
        for index in range(first, first + count)
    ]


class _Tree:
    def __init__(self, log: LogReader, size: int) -> None:
        self._log = log
        self._size = size
        self._leaves: dict[int, tuple[bytes, ...]] = {}

    @cached_property
    def _roots(self) -> tuple[bytes, ...]:
        return self._log.bundle_roots()

    def subtree(self, start: int, end: int) -> bytes:
        """MTH(D[start:end])."""
        packed = len(self._roots) * TILE_WIDTH
        if end <= packed and start % TILE_WIDTH == 0 and end % TILE_WIDTH == 0:
            return tree_root(self._roots[start // TILE_WIDTH : end // TILE_WIDTH])
        if start < packed < end or end - start > TILE_WIDTH:
            middle = start + split(end - start)
            return node_hash(self.subtree(start, middle), self.subtree(middle, end))
        return tree_root(self._hashes(start, end))

    def _hashes(self, start: int, end: int) -> tuple[bytes, ...]:
        # A bundle's worth at a time; the newest entries are asked for again and again.
        bundle = start // TILE_WIDTH
        if (end - 1) // TILE_WIDTH != bundle:
            return tuple(leaf_hash(entry) for _, entry in self._log.entries(start, end))
        leaves = self._leaves.get(bundle)
        if leaves is None:
            first = bundle * TILE_WIDTH
            found = self._log.entries(first, min(first + TILE_WIDTH, self._size))
            leaves = self._leaves[bundle] = tuple(leaf_hash(entry) for _, entry in found)
        return leaves[start - bundle * TILE_WIDTH : end - bundle * TILE_WIDTH]
