"""Evidence that an entry is in a log, as one text (c2sp.org/tlog-proof@v1).

Rules kept: one spelling per value (decimal index without leading zeroes, canonical base64); the
text holds the index, the hashes from the leaf's sibling up, and a signed checkpoint, and nothing
else; verifying raises and needs nothing but the entry and keys that the verifier has of her own.
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chartgate.errors import Corrupt
from chartgate.tlog.checkpoint import Checkpoint, open_checkpoint, peek
from chartgate.tlog.note import BadSignature, VerifierKey
from chartgate.tlog.proof import verify_inclusion
from chartgate.tlog.tree import HASH_SIZE, leaf_hash

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_HASHES: Final = 63
MAX_TEXT: Final = 65_536


class MalformedProof(Corrupt):
    """Text that is not a tlog-proof in its one allowed spelling."""

    code = "malformed_proof"


@dataclass(frozen=True, slots=True)
class LogProof:
    """Where an entry is in a log, and why that can be believed."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    """Signed."""

    @classmethod
    def parse(cls, text: str) -> "LogProof":
        """Read the text; nothing is verified by that."""
        if len(text) > MAX_TEXT:
            raise MalformedProof("a proof is at most 64 KiB")
        head, found, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        if not found or len(lines) < 2 or lines[0] != HEADER:
            raise MalformedProof("a proof begins with its format and ends with a checkpoint")
        number = lines[1].removeprefix("index ")
        if not (lines[1].startswith("index ") and number.isascii() and number.isdigit()):
            raise MalformedProof("a proof names an index")
        if len(lines) - 2 > MAX_HASHES or len(number) > 20:
            raise MalformedProof("a proof of more hashes than any log has")
        parsed = cls(int(number), tuple(_hash(line) for line in lines[2:]), checkpoint)
        if str(parsed) != text:
            raise MalformedProof("a proof in another spelling than the canonical one")
        return parsed

    def __str__(self) -> str:
        lines = (HEADER, f"index {self.index}", *(b64encode(h).decode() for h in self.hashes))
        return "\n".join(lines) + "\n\n" + self.checkpoint

    def verify(self, entry: bytes, keys: Sequence[VerifierKey]) -> Checkpoint:
        """The checkpoint, if a log of one of ``keys`` holds ``entry`` at ``index``; else raises."""
        origin = peek(self.checkpoint).origin
        known = [key for key in keys if key.name == origin]
        if not known:
            raise BadSignature(f"a proof from the log {origin!r}, which is not trusted here")
        checkpoint = _opened(self.checkpoint, known)
        verify_inclusion(
            self.hashes,
            index=self.index,
            size=checkpoint.size,
            leaf=leaf_hash(entry),
            root=checkpoint.root,
        )
        return checkpoint


def _opened(text: str, keys: Sequence[VerifierKey]) -> Checkpoint:
    for key in keys[:-1]:  # two logs may bear one name, and have different keys
        try:
            return open_checkpoint(text, key)
        except Corrupt:
            continue
    return open_checkpoint(text, keys[-1])


def _hash(line: str) -> bytes:
    try:
        data = b64decode(line, validate=True)
    except (Base64Error, ValueError) as exc:
        raise MalformedProof("a hash in a proof is base64") from exc
    if len(data) != HASH_SIZE:
        raise MalformedProof("a hash in a proof has 32 bytes")
    return data
