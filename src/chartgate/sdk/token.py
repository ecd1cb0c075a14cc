"""Where an application's service token comes from: given, of a file, or of the environment.

The rules kept: a token is never shown. A file is read anew when it has changed, and when the service
no longer takes what we have, so that a rotated token needs no restart; while it is being replaced,
what we have still counts. A file that cannot be read is "not now", without its path: an application's
user may be shown the words.
"""

import os
from pathlib import Path
from typing import Final, Protocol

from chartgate.sdk.errors import Misused, Unavailable

ENVIRONMENT: Final = "CHARTGATE_TOKEN"
FILE_ENVIRONMENT: Final = "CHARTGATE_TOKEN_FILE"
_MAX_BYTES: Final = 4096


class Token(Protocol):
    """A token, now."""

    def value(self) -> str: ...

    def reread(self) -> bool:
        """Look again; whether it is another one."""
        ...


class GivenToken:
    """A token that does not change; empty where the connection itself says who we are (mTLS)."""

    def __init__(self, text: str = "") -> None:
        self._text: Final = _checked(text.strip(), "the token") if text else ""

    def value(self) -> str:
        return self._text

    def reread(self) -> bool:
        return False


class FileToken:
    """The token in a file; another file of that name is another token."""

    def __init__(self, path: str | Path) -> None:
        self._path: Final = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._text = ""

    def value(self) -> str:
        try:
            now = self._path.stat()
            mark = (now.st_mtime_ns, now.st_size, now.st_ino)
            if mark != self._seen:
                self._text, self._seen = self._read(), mark
        except OSError as exc:
            if not self._text:
                said = os.strerror(exc.errno) if exc.errno else type(exc).__name__
                raise Unavailable(f"the application's token file cannot be read: {said}") from None
        except Misused:
            # Half of it may be written: it is looked at again with the next question.
            if not self._text:
                raise
        return self._text

    def reread(self) -> bool:
        before, self._seen = self._text, None
        return self.value() != before

    def _read(self) -> str:
        with self._path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        return _checked(data.decode("ascii", "replace").strip(), f"the token file {self._path}")


def token_of(token: str | None, file: str | Path | None) -> Token:
    """The token as the application says it: given, or of a file; else of the environment."""
    if token is not None and file is not None:
        raise Misused("either a token or a token file, not both")
    if file is not None:
        return FileToken(file)
    if token is not None:
        return GivenToken(token)
    if path := os.environ.get(FILE_ENVIRONMENT):
        return FileToken(path)
    return GivenToken(os.environ.get(ENVIRONMENT, ""))


def _checked(text: str, what: str) -> str:
    # RFC 6750: a token is one line of visible characters; anything else could end a header.
    if not text or len(text) > _MAX_BYTES or not all("!" <= c <= "~" for c in text):
        raise Misused(f"{what} is no token: one line of visible ASCII is wanted")
    return text
