"""The log's Ed25519 key in a file: made once, readable by its owner alone.

Rules kept: the file is created complete or not at all (temporary file, fsync, hard link, fsync of
the directory), never over an existing one, mode 0600; a key that others can read is refused. The
public half stands beside it as ``<path>.pub``, a C2SP verifier key, to be kept *outside* the log
directory by whoever verifies. The private spelling is that of the signed-note tools
(``PRIVATE+KEY+name+id+key``), so an operator can use theirs.
"""

import contextlib
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chartgate.adapters.log_disk import Disk
from chartgate.errors import ChartgateError, Misconfigured
from chartgate.tlog.note import ED25519, VerifierKey

_PREFIX = "PRIVATE+KEY+"


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs: what others verify with, and the function that holds the secret."""

    key: VerifierKey
    sign: Callable[[bytes], bytes] = field(repr=False)

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def vkey(self) -> str:
        return str(self.key)


def load_or_create_signer(path: Path, name: str) -> Signer:
    """The signer called ``name`` whose key is at ``path``, made there if there is none."""
    path = Path(path)
    try:
        try:
            signer = _load(path)
        except FileNotFoundError:
            _create(path, name)
            signer = _load(path)
        if signer.name != name:
            raise Misconfigured(f"the key in {path} is called {signer.name}, not {name}")
        _publish(path.with_name(path.name + ".pub"), signer)
    except OSError as exc:
        raise Misconfigured(f"the signing key {path}: {exc.strerror}") from exc
    return signer


def _load(path: Path) -> Signer:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(fd, encoding="ascii") as file:
        if os.fstat(fd).st_mode & 0o077:
            raise Misconfigured(f"the signing key {path} can be read by others: chmod 600 it")
        try:
            text = file.read(4096)
            name, key_id, body = text.removeprefix(_PREFIX).removesuffix("\n").split("+", 2)
            data = b64decode(body, validate=True)
            if not text.startswith(_PREFIX) or data[0] != ED25519:
                raise ValueError("type")
            secret = Ed25519PrivateKey.from_private_bytes(data[1:])
            key = VerifierKey(name, ED25519, secret.public_key().public_bytes_raw())
            if key.key_id.hex() != key_id:
                raise ValueError("id")
        except (ValueError, IndexError, ChartgateError):
            # no cause is kept: it could quote the secret
            raise Misconfigured(f"{path} is not an Ed25519 note key") from None
    return Signer(key, secret.sign)


def _create(path: Path, name: str) -> None:
    secret = Ed25519PrivateKey.generate()
    key = VerifierKey(name, ED25519, secret.public_key().public_bytes_raw())
    body = b64encode(bytes([ED25519]) + secret.private_bytes_raw()).decode("ascii")
    text = f"{_PREFIX}{name}+{key.key_id.hex()}+{body}\n"
    _write_once(path, text, 0o600)


def _publish(path: Path, signer: Signer) -> None:
    text = signer.vkey + "\n"
    if not path.exists():
        _write_once(path, text, 0o644)
    elif path.read_text(encoding="utf-8") != text:
        raise Misconfigured(f"{path} is not the public half of the key beside it")


def _write_once(path: Path, text: str, mode: int) -> None:
    """Create the file complete; if somebody was faster, theirs stays."""
    disk, temporary = Disk(), path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        disk.create(temporary, text.encode(), mode=mode)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    disk.sync_directory(path.parent)
