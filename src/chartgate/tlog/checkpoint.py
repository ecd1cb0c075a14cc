"""Checkpoints (c2sp.org/tlog-checkpoint v1.0.0): origin, size and root, as a signed note.

Rules kept: one tree state has one text, so the size has no leading zero, sign or underscore and
the root is canonical base64; extension lines are refused, because we would sign what we do not
understand; the key name equals the origin.
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chartgate.errors import Corrupt
from chartgate.tlog import note
from chartgate.tlog.tree import EMPTY_ROOT, HASH_SIZE

MAX_SIZE = 2**64 - 1


class MalformedCheckpoint(Corrupt):
    """Text that is not a checkpoint in its one allowed spelling."""

    code = "malformed_checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: what it is called, how many entries it has, the root over them."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        note.check_name(self.origin)
        if not 0 <= self.size <= MAX_SIZE:
            raise MalformedCheckpoint("a checkpoint's size is a 64-bit number")
        if len(self.root) != HASH_SIZE:
            raise MalformedCheckpoint("a checkpoint's root has 32 bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise MalformedCheckpoint("the empty tree has one root only")

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the three lines of an unsigned checkpoint."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise MalformedCheckpoint("a checkpoint is origin, size and root, a line each")
        origin, size, root = lines[:3]
        if not (size.isascii() and size.isdigit() and len(size) <= 20):
            raise MalformedCheckpoint("a checkpoint's size is a decimal number")
        try:
            parsed = cls(origin, int(size), b64decode(root, validate=True))
        except (Base64Error, ValueError) as exc:
            raise MalformedCheckpoint("a checkpoint's root is base64") from exc
        if str(parsed) != text:  # else two texts would stand for one tree
            raise MalformedCheckpoint("a checkpoint in another spelling than the canonical one")
        return parsed

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode('ascii')}\n"


def sign_checkpoint(checkpoint: Checkpoint, key: note.VerifierKey, signer: note.SignBytes) -> str:
    """The signed text; the log's own key carries the log's name."""
    if key.name != checkpoint.origin:
        raise MalformedCheckpoint("the key that signs a checkpoint is named as its origin")
    return note.sign(str(checkpoint), key, signer)


def checkpoint_signer(key: note.VerifierKey, signer: note.SignBytes) -> Callable[[int, bytes], str]:
    """``sign_checkpoint`` of one log, at each of its commits: what never changes is made once."""
    sign_checkpoint(Checkpoint(key.name, 0, EMPTY_ROOT), key, lambda _: b"")  # may it?
    name, key_id = key.name, key.key_id
    line = f"\n{note.DASH}{name} "

    def sign(size: int, root: bytes) -> str:
        text = f"{name}\n{size}\n{b64encode(root).decode('ascii')}\n"
        signature = b64encode(key_id + signer(text.encode())).decode("ascii")
        return f"{text}{line}{signature}\n"

    return sign


def open_checkpoint(
    text: str, key: note.VerifierKey, witnesses: Sequence[note.VerifierKey] = ()
) -> Checkpoint:
    """The checkpoint, if the log's own key signed it; a known witness must not have erred."""
    opened = note.open_note(text, (key, *witnesses))
    if all(vouched.key != key for vouched in opened.signatures):
        raise note.BadSignature("the log itself did not sign this checkpoint")
    checkpoint = Checkpoint.parse(opened.text)
    if checkpoint.origin != key.name:
        raise MalformedCheckpoint("a checkpoint of another log than its key's")
    return checkpoint


def peek(text: str) -> Checkpoint:
    """What a signed checkpoint *says*, its signature not looked at: for readers without a key."""
    head, found, _ = text.partition("\n\n")
    if not found:
        raise MalformedCheckpoint("a signed checkpoint has a blank line before its signatures")
    return Checkpoint.parse(head + "\n")
