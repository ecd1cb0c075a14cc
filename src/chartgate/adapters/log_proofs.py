"""Inclusion proofs from a log directory, while its writer appends.

The rule kept: what is handed out was computed from the entries themselves and verifies under the
checkpoint that stands in it. Whole bundles of packed segments give their roots, so that a proof
from a long log does not read the log; what is not packed yet is hashed once, and before an entry is
appended if its proof is to be had at once (``warm``).
"""

from typing import Final

from chartgate.adapters.log_reader import LogReader
from chartgate.errors import Refused
from chartgate.tlog.proof import inclusion_proof
from chartgate.tlog.proof_text import LogProof
from chartgate.tlog.tile import TILE_WIDTH
from chartgate.tlog.tree import leaf_hash, node_hash, split, tree_root


def prove_entries(log: LogReader, first: int, count: int) -> list[tuple[bytes, str]]:
    """Entries with the texts of their proofs (c2sp.org/tlog-proof), under the newest checkpoint."""
    return LogProver(log).prove(first, count)


class LogProver:
    """Proves entries of one log, and remembers what it hashed."""

    def __init__(self, log: LogReader) -> None:
        self._log: Final = log
        self._roots: tuple[bytes, ...] = ()
        self._leaves: dict[int, tuple[bytes, ...]] = {}
        """Of whole bundles: they never change."""

    def warm(self) -> None:
        """Hash what is there now, so that the next proof has little left to do."""
        size, _ = self._log.head()
        self._roots = self._log.bundle_roots()
        whole = size - size % TILE_WIDTH
        packed = len(self._roots) * TILE_WIDTH
        bundles = range(packed // TILE_WIDTH, whole // TILE_WIDTH)
        missing = [bundle for bundle in bundles if bundle not in self._leaves]
        if not missing:
            return
        leaves: list[bytes] = []
        for index, entry in self._log.entries(missing[0] * TILE_WIDTH, whole):
            leaves.append(leaf_hash(entry))
            if len(leaves) == TILE_WIDTH:
                self._leaves[index // TILE_WIDTH] = tuple(leaves)
                leaves.clear()

    def prove(self, first: int, count: int) -> list[tuple[bytes, str]]:
        """As ``prove_entries``."""
        self.warm()
        size, checkpoint = self._log.head()
        if first < 0 or first + count > size:
            raise Refused(f"entry {first + count - 1} is not in a log of {size}")
        found = dict(self._log.entries(first, first + count))
        newest = size - size % TILE_WIDTH
        rest = tuple(leaf_hash(entry) for _, entry in self._log.entries(newest, size))

        def subtree(start: int, end: int) -> bytes:
            """MTH(D[start:end])."""
            packed = len(self._roots) * TILE_WIDTH
            if end <= packed and start % TILE_WIDTH == 0 and end % TILE_WIDTH == 0:
                return tree_root(self._roots[start // TILE_WIDTH : end // TILE_WIDTH])
            bundle = start // TILE_WIDTH
            if (end - 1) // TILE_WIDTH != bundle:
                middle = start + split(end - start)
                return node_hash(subtree(start, middle), subtree(middle, end))
            base = bundle * TILE_WIDTH
            leaves = rest if base == newest else self._whole(bundle)
            return tree_root(leaves[start - base : end - base])

        return [
            (
                found[index],
                str(LogProof(index, inclusion_proof(index, size, subtree), checkpoint)),
            )
            for index in range(first, first + count)
        ]

    def _whole(self, bundle: int) -> tuple[bytes, ...]:
        leaves = self._leaves.get(bundle)
        if leaves is None:
            first = bundle * TILE_WIDTH
            entries = self._log.entries(first, first + TILE_WIDTH)
            leaves = self._leaves[bundle] = tuple(leaf_hash(entry) for _, entry in entries)
        return leaves
