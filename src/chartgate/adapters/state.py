"""Where an instance keeps what it must not lose: one folder, one meaning per path.

The rule kept: what verifies the log never lies inside the log. The public key and the last known
checkpoint are siblings of ``log/``, so whoever can rewrite the log folder alone is still found out.
Secrets are in folders of mode 0700 and files of mode 0600 (45 CFR 164.312(a)(1)).

::

    <root>/
      instance.json      what runs here: node, source, map, policies, connections (no secrets)
      lock               flock of the one process that runs the instance
      pgpass             passwords of the demo people, in libpq's passfile format (0600)
      tokens/            service tokens of the demo's applications, one file each (0600)
      tls/               certificates of the decision service that the instance made itself
      legacy/            the hospital's own PostgreSQL (demo)
      control/           the control plane's PostgreSQL
      log/               the audit log: write-ahead log and packed segments
      keys/              log.key, log.key.pub, token-<year>.key
      keys/trusted/      public keys of other nodes' logs (put there by an administrator)
      in-force/          the version of policies and data map in force here, with its evidence
      checkpoints/last   newest signed checkpoint that was seen to verify
      run/               log.sock, decide.sock
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chartgate.errors import Corrupt, Misconfigured

ENVIRONMENT = "CHARTGATE_STATE"


class RolledBack(Corrupt):
    """The log is not one that grew from what the known checkpoint was signed over."""

    code = "rolled_back"


class Instance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs in a state folder; written by whoever starts it, read by the other commands."""

    node: str
    """Name of this node: the ``node`` of its events."""
    origin: str
    """Origin line of the log's checkpoints (c2sp.org/tlog-checkpoint)."""
    source: str
    """Name of the data map: which database; the issuer of its patient identifiers."""
    data_map: str
    """Path of the data map."""
    policies: str
    """Path of the policy directory."""
    control: str
    """libpq connection string of the control plane, without a password."""
    legacy: str
    """libpq connection string of the source database, without a password."""
    host: str = "127.0.0.1"
    port: int = 0
    """Where the gateway listens; 0 while it does not."""
    database: str = ""
    """Database name people connect to."""
    auditor: str = ""
    """Login name that audit commands use when none is given (the demo's privacy officer)."""
    decisions: str = ""
    """Address of the decision service, ``https://host:port``; empty while there is none."""
    asker: str = ""
    """Service in whose name ``chartgate ask`` asks when none is given (the demo's own)."""
    embedded: bool = True
    """Whether ``control`` and ``legacy`` are this folder's own servers."""


@dataclass(frozen=True, slots=True)
class State:
    """The paths of one state folder. Nothing is created before :meth:`create`."""

    root: Path

    @property
    def legacy_pg(self) -> Path:
        return self.root / "legacy"

    @property
    def control_pg(self) -> Path:
        return self.root / "control"

    @property
    def log_dir(self) -> Path:
        return self.root / "log"

    @property
    def keys_dir(self) -> Path:
        return self.root / "keys"

    @property
    def log_key(self) -> Path:
        """The Ed25519 key that signs checkpoints."""
        return self.keys_dir / "log.key"

    @property
    def log_public_key(self) -> Path:
        """Its public half, as a C2SP verifier key line."""
        return self.keys_dir / "log.key.pub"

    @property
    def trusted_logs(self) -> Path:
        """Public keys (``*.pub``) of other nodes' logs whose entries this node believes."""
        return self.keys_dir / "trusted"

    @property
    def in_force_dir(self) -> Path:
        """What this node has in force, one file each for the policies and the data map."""
        return self.root / "in-force"

    @property
    def checkpoint_file(self) -> Path:
        return self.root / "checkpoints" / "last"

    @property
    def sockets(self) -> Path:
        return self.root / "run"

    @property
    def log_socket(self) -> Path:
        return self.sockets / "log.sock"

    @property
    def decision_socket(self) -> Path:
        """Where the decision service is asked by programs of this computer."""
        return self.sockets / "decide.sock"

    @property
    def tls_dir(self) -> Path:
        """Certificates that the decision service made itself."""
        return self.root / "tls"

    @property
    def authority(self) -> Path:
        """Whom callers of the decision service trust."""
        return self.tls_dir / "ca.pem"

    @property
    def tokens_dir(self) -> Path:
        return self.root / "tokens"

    def token_file(self, service: str) -> Path:
        """The service token of one of the demo's applications."""
        return self.tokens_dir / service

    @property
    def passfile(self) -> Path:
        return self.root / "pgpass"

    @property
    def lock_file(self) -> Path:
        return self.root / "lock"

    @property
    def instance_file(self) -> Path:
        return self.root / "instance.json"

    def create(self) -> None:
        """Make the folders, closed to others."""
        below = (
            self.log_dir,
            self.keys_dir,
            self.in_force_dir,
            self.checkpoint_file.parent,
            self.sockets,
        )
        for folder in (self.root, *below):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)

    def instance(self) -> Instance:
        """What runs here; raises ``Misconfigured`` when nothing was ever started here."""
        try:
            return msgspec.json.decode(self.instance_file.read_bytes(), type=Instance)
        except FileNotFoundError:
            raise Misconfigured(
                f"{self.root} holds no Chartgate instance: start one with `chartgate demo`, "
                f"or name its folder with --state or {ENVIRONMENT}"
            ) from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise Misconfigured(f"{self.instance_file} is damaged: {exc}") from exc

    def save_instance(self, instance: Instance) -> None:
        """Replace ``instance.json`` atomically."""
        text = msgspec.json.format(msgspec.json.encode(instance), indent=2) + b"\n"
        replace_file(self.instance_file, text)

    def known_checkpoint(self) -> str | None:
        """The newest checkpoint that was seen to verify; None before the first verification."""
        try:
            return self.checkpoint_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def save_checkpoint(self, checkpoint: str) -> None:
        """Remember a checkpoint of the log as it is now.

        Raises ``RolledBack`` instead of forgetting that the log was once longer, or another: the
        known checkpoint is the evidence of it.
        """
        from chartgate.tlog.checkpoint import peek  # loads cryptography: not for every command

        fresh, known = peek(checkpoint), self.known_checkpoint()
        if known is not None:
            kept = peek(known)
            if fresh.size < kept.size or (fresh.size == kept.size and fresh.root != kept.root):
                raise RolledBack(
                    f"the audit log has {fresh.size} entries, but the checkpoint in "
                    f"{self.checkpoint_file} is over {kept.size}: the log was rolled back or "
                    "replaced"
                )
        replace_file(self.checkpoint_file, checkpoint.encode())


class StagedFile:
    """Bytes that are on disk beside the file that they are to be; closed to others."""

    def __init__(self, path: Path, data: bytes) -> None:
        # a name of its own: a gateway and a command may save at the same time
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        self._path, self._fresh = path, Path(name)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            self.discard()
            raise

    def take_effect(self) -> None:
        """The file has these bytes or, if we die, still its old ones."""
        self._fresh.replace(self._path)

    def discard(self) -> None:
        """Forget them, if they have not taken effect."""
        self._fresh.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """The file has these bytes or, if we die, still its old ones; closed to others."""
    fresh = StagedFile(path, data)
    try:
        fresh.take_effect()
    finally:
        fresh.discard()


def default_root() -> Path:
    """``CHARTGATE_STATE``, else the demo's folder under the XDG state directory."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "chartgate" / "demo"
