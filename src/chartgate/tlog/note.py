"""Signed notes (c2sp.org/signed-note v1.0.0) and Ed25519 cosignatures (tlog-cosignature v1.0.1).

Rules kept: a signature by an unknown key is ignored; a signature by a *known* key that does not
verify rejects the whole note, and so does a note without any known signature. There is one
spelling for each value: base64 is canonical, key ids are lower-case and must match their key.
Private keys never come here: signing is a function that is passed in.
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chartgate.errors import Corrupt

ED25519 = 0x01
ED25519_COSIGNATURE = 0x04
MAX_SIGNATURES = 64
"""signed-note asks for at least 16; a bound keeps a hostile note cheap to refuse."""

DASH = "— "
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64

SignBytes = Callable[[bytes], bytes]


class MalformedNote(Corrupt):
    """Text that is not a signed note, or not a key, in its one allowed spelling."""

    code = "malformed_note"


class BadSignature(Corrupt):
    """A known key did not sign this text."""

    code = "bad_signature"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A key that may vouch for notes: name, algorithm byte, public key."""

    name: str
    algorithm: int
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.algorithm not in (ED25519, ED25519_COSIGNATURE):
            raise MalformedNote(f"key type 0x{self.algorithm:02x} is not supported")
        if len(self.public) != _KEY_BYTES:
            raise MalformedNote("an Ed25519 public key has 32 bytes")

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """Read ``name+hex key id+base64(type || key)``; split on the first two ``+`` only."""
        parts = text.split("+", 2)
        if len(parts) != 3:
            raise MalformedNote("a verifier key is name+id+key")
        name, _, body = parts
        data = _decode64(body)
        if not data:
            raise MalformedNote("a verifier key names its type")
        key = cls(name, data[0], data[1:])
        if str(key) != text:
            raise MalformedNote("the key id of a verifier key does not match its key")
        return key

    def __str__(self) -> str:
        body = b64encode(bytes([self.algorithm]) + self.public).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{body}"

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || newline || type || key), first four bytes."""
        hashed = self.name.encode() + b"\n" + bytes([self.algorithm]) + self.public
        return sha256(hashed).digest()[:4]

    def verify(self, text: str, signature: bytes) -> int | None:
        """Raise unless the signature is ours; give the time (POSIX seconds) of a cosignature."""
        message, time = text.encode(), None
        if self.algorithm == ED25519_COSIGNATURE:
            if len(signature) != 8 + _SIGNATURE_BYTES:
                raise BadSignature(f"the cosignature of {self.name} has the wrong length")
            time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            message = cosigned_message(text, time)
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError) as exc:
            raise BadSignature(f"the signature of {self.name} does not verify") from exc
        return time


@dataclass(frozen=True, slots=True)
class Vouched:
    """One signature that verified, and when it was made if it says so."""

    key: VerifierKey
    time: int | None


@dataclass(frozen=True, slots=True)
class OpenNote:
    """A note's text, and the known keys that signed it."""

    text: str
    signatures: tuple[Vouched, ...]


def check_name(name: str) -> None:
    """A key name is not empty and holds neither white space, ``+`` nor control characters."""
    if not name or "+" in name or any(char.isspace() or char < " " for char in name):
        raise MalformedNote("a key name is not empty and has no space, control character or '+'")
    _check_utf8(name)


def cosigned_message(text: str, time: int) -> bytes:
    """What an Ed25519 witness signs (tlog-cosignature)."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def sign(text: str, key: VerifierKey, signer: SignBytes) -> str:
    """The note: text, blank line, one signature line by ``signer``, which holds ``key``'s secret."""
    _check_text(text)
    if key.algorithm != ED25519:
        raise MalformedNote("only Ed25519 note keys sign notes here")
    return f"{text}\n{_signature_line(key, signer(text.encode()))}"


def add_cosignature(note: str, key: VerifierKey, signer: SignBytes, *, time: int) -> str:
    """The note with a witness's line added, dated ``time``."""
    if key.algorithm != ED25519_COSIGNATURE:
        raise MalformedNote("a cosignature needs a cosignature key")
    text, _ = _split(note)
    signature = signer(cosigned_message(text, time))
    return note + _signature_line(key, time.to_bytes(8, "big") + signature)


def open_note(note: str, keys: Sequence[VerifierKey]) -> OpenNote:
    """The text, if at least one of ``keys`` signed it and none of them signed it wrongly."""
    text, lines = _split(note)
    known = {(key.name, key.key_id): key for key in keys}
    vouched: list[Vouched] = []
    for line in lines:
        name, key_id, signature = _parse_signature(line)
        key = known.get((name, key_id))
        if key is not None:
            vouched.append(Vouched(key, key.verify(text, signature)))
    if not vouched:
        raise BadSignature("no signature by a known key")
    return OpenNote(text, tuple(vouched))


def _split(note: str) -> tuple[str, list[str]]:
    _check_text(note)
    head, found, tail = note.rpartition("\n\n")
    if not found or not tail:
        raise MalformedNote("a note has a blank line between text and signatures")
    lines = tail.removesuffix("\n").split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedNote(f"a note of more than {MAX_SIGNATURES} signatures")
    return head + "\n", lines


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise MalformedNote("a note ends with a newline")
    if any(char < " " and char != "\n" for char in text):
        raise MalformedNote("a note has no control character but newline")
    _check_utf8(text)


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise MalformedNote("a note is UTF-8") from exc


def _signature_line(key: VerifierKey, signature: bytes) -> str:
    return f"{DASH}{key.name} {b64encode(key.key_id + signature).decode('ascii')}\n"


def _parse_signature(line: str) -> tuple[str, bytes, bytes]:
    if not line.startswith(DASH):
        raise MalformedNote("a signature line starts with an em dash and a space")
    name, found, body = line.removeprefix(DASH).partition(" ")
    if not found:
        raise MalformedNote("a signature line is name, space, base64")
    check_name(name)
    data = _decode64(body)
    if len(data) < 5:
        raise MalformedNote("a signature is longer than its key id")
    return name, data[:4], data[4:]


def _decode64(text: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except (Base64Error, ValueError) as exc:
        raise MalformedNote("not base64") from exc
    if b64encode(data).decode("ascii") != text:
        raise MalformedNote("base64 in another spelling than the canonical one")
    return data
