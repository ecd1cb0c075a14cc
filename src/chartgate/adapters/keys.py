"""Keys on disk: a folder of mode 0700, files of mode 0600, written once and never replaced.

The rule kept: a key that others can read is no key. Wider permissions, a foreign owner or a file
that is not a plain file stop whoever wants to use it, with one line that says what to do
(45 CFR 164.312(a)(2)(iv), (d)). A new key is complete and on disk before it has its name: it is
written to a name of its own (O_EXCL), synced, linked to its final name, and the folder is synced.
Two processes that create the same key at once end up with the same one.
"""

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from chartgate.app.tokens import KEY_BYTES
from chartgate.errors import Misconfigured

_TOKEN_FILE = re.compile(r"token-([0-9]{4})\.key", re.ASCII)


class UnsafeKey(Misconfigured):
    """A key file or its folder is open to others, damaged, or not ours."""

    code = "unsafe_key"


class KeyStore:
    """The keys of one instance."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        _check(directory, directory.lstat(), stat.S_ISDIR, "folder", 0o700)

    def read(self, name: str) -> bytes | None:
        """The secret of that name; None when there is none."""
        path = self._directory / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise UnsafeKey(f"cannot open the key {path}: {exc.strerror}") from exc
        with os.fdopen(fd, "rb") as file:
            _check(path, os.fstat(fd), stat.S_ISREG, "file", 0o600)
            return file.read()

    def create(self, name: str, secret: bytes) -> bytes:
        """Keep ``secret`` under ``name``; if that exists already, what exists is the answer."""
        path = self._directory / name
        fresh = self._directory / f".{name}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        _sync_folder(self._directory)
        kept = self.read(name)
        if kept is None:
            raise UnsafeKey(f"the key {path} vanished while it was being created")
        return kept

    def token_years(self) -> tuple[int, ...]:
        """The years that have a token key, oldest first."""
        found = (_TOKEN_FILE.fullmatch(entry.name) for entry in self._directory.iterdir())
        return tuple(sorted(int(match[1]) for match in found if match))

    def token_key(self, year: int, *, create: bool) -> bytes | None:
        """The token key of a year, made when it is missing and ``create`` says so."""
        name = f"token-{year:04}.key"
        key = self.read(name)
        if key is None and create:
            key = self.create(name, secrets.token_bytes(KEY_BYTES))
        if key is not None and len(key) != KEY_BYTES:
            raise UnsafeKey(f"the key {self._directory / name} is not {KEY_BYTES} bytes long")
        return key


class TokenKeys(Mapping[int, bytes]):
    """The token keys by year, read once each.

    With ``create`` a year's key comes into being when it is first asked for: the gateway keeps
    working over New Year's Eve. Readers leave it off: a search never makes a key.
    """

    def __init__(self, store: KeyStore, *, create: bool) -> None:
        self._store = store
        self._create = create
        self._known: dict[int, bytes] = {}

    def __getitem__(self, year: int) -> bytes:
        key = self._known.get(year)
        if key is None:
            key = self._store.token_key(year, create=self._create)
            if key is None:
                raise KeyError(year)
            self._known[year] = key
        return key

    def __iter__(self) -> Iterator[int]:
        return iter(self._store.token_years())

    def __len__(self) -> int:
        return len(self._store.token_years())

    def __contains__(self, year: object) -> bool:
        return year in self._store.token_years()


def _check(
    path: Path, found: os.stat_result, is_kind: Callable[[int], bool], kind: str, mode: int
) -> None:
    if not is_kind(found.st_mode):
        raise UnsafeKey(f"{path} is not a plain {kind}")
    if found.st_uid not in {os.geteuid(), 0}:
        raise UnsafeKey(f"the key {kind} {path} belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise UnsafeKey(
            f"the key {kind} {path} is open to others "
            f"(mode {stat.S_IMODE(found.st_mode):04o}): chmod {mode:04o} it"
        )


def _sync_folder(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
