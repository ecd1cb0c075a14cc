"""Where people act by command: they sign in, and what they do is in the log first.

Rules kept: a person proves who she is with her own password against the verifier that the control
plane holds (RFC 5802), in constant time, and only while that credential lives; a sign-in that
failed is recorded (45 CFR 164.308(a)(5)(ii)(C), 164.312(d)). While a gate runs its log writer is
asked; else the log is opened for one entry, under the log's own lock.
"""

import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from chartgate.adapters.control_plane_snapshot import ControlPlaneSnapshot
from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_socket import NoGateway, append_through
from chartgate.adapters.signing import load_or_create_signer
from chartgate.adapters.state import Instance, State
from chartgate.app.entitlement import DecisionPoint
from chartgate.errors import Misconfigured, Refused
from chartgate.model.event import Event, LoginRefused, Recovered, encode
from chartgate.model.principal import Person
from chartgate.pgwire.scram import AuthenticationFailed, Verifier, mint_verifier


class Desk:
    """One sitting. ``now`` answers the time in UTC; ``channel`` is what a failed sign-in names."""

    def __init__(
        self,
        state: State,
        instance: Instance,
        point: DecisionPoint,
        people: Callable[[], ControlPlaneSnapshot],
        *,
        channel: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._state: Final = state
        self._instance: Final = instance
        self._point: Final = point
        self._people: Final = people
        self._channel: Final = channel
        self._now: Final = now

    def sign_in(self, name: str, password: str) -> Person:
        """The person behind name and password; raises ``AuthenticationFailed``, recorded."""
        people = self._people()
        person = people.persons.get(name)
        credential = people.credential(name, at=self._now())
        if credential is not None and is_password(password, credential.scram_verifier):
            assert person is not None
            return person
        if credential is None:  # as slow as a wrong password
            mint_verifier(password, salt=secrets.token_bytes(16))
        self._append(
            LoginRefused(
                at=self._at(),
                node=self._instance.node,
                login="unknown" if person is None else person.uid,
                channel=self._channel,
                reason="no valid credential" if credential is None else "wrong password",
            )
        )
        raise AuthenticationFailed

    def _decide(
        self, person: Person | None, actions: tuple[str, ...], purpose: str
    ) -> tuple[bool, tuple[str, ...]]:
        """Whether one of the actions is allowed, and the policies that decided."""
        if person is None:
            return False, ()
        at = self._now()
        live = person.live(at=at) if person.active else ()
        claimed = purpose or self._point.roles.default_purpose(live) or ""
        try:
            asker = self._point.asker(person, claimed, at=at)
        except Refused:  # no live role may act for that purpose
            return False, ()
        determining: tuple[str, ...] = ()
        for action in actions:
            answer = self._point.may(asker, action, at=at)
            if answer.allowed:
                return True, answer.determining
            determining = determining or answer.determining
        return False, determining

    def _append(self, event: Event) -> int:
        try:
            entry = encode(event)
        except UnicodeEncodeError:
            raise Misconfigured("what you wrote is not UTF-8 text") from None
        try:
            return append_through(self._state.log_socket, [entry])
        except NoGateway:
            return self._append_directly(entry)

    def _append_directly(self, entry: bytes) -> int:
        """No gateway runs: hold the log open for one entry. The log's own lock arbitrates."""
        if not self._state.log_key.exists():
            raise Misconfigured(f"there is no audit log in {self._state.root}")
        torn: list[tuple[int, str]] = []
        signer = load_or_create_signer(self._state.log_key, self._instance.origin)
        with LogFiles.open(
            self._state.log_dir,
            signer,
            on_recovered=lambda dropped, digest: torn.append((dropped, digest)),
        ) as log:
            for dropped, digest in torn:
                recovered = Recovered(
                    at=self._at(),
                    node=self._instance.node,
                    dropped_bytes=dropped,
                    dropped_sha256=digest,
                    size=log.size,
                )
                log.append([encode(recovered)])
            return log.append([entry]).first_index

    def _at(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def is_password(password: str, verifier: str) -> bool:
    """Whether the password is the one behind a SCRAM verifier (RFC 5802)."""
    stored = Verifier.parse(verifier)
    minted = mint_verifier(password, salt=stored.salt, iterations=stored.iterations)
    return hmac.compare_digest(minted, verifier)


def password_in(passfile: Path, name: str) -> str | None:
    """The first password that libpq's passfile (``host:port:database:user:password``) has for
    ``name``; a file that others can read is not used, as libpq does not."""
    try:
        if passfile.stat().st_mode & 0o077:
            return None
        lines = passfile.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        fields = _fields(line)
        if len(fields) == 5 and fields[3] == name:
            return fields[4]
    return None


def _fields(line: str) -> list[str]:
    fields = [""]
    escaped = False
    for char in line:
        if escaped or (char not in ":\\"):
            fields[-1] += char
            escaped = False
        elif char == "\\":
            escaped = True
        elif len(fields) < 5:
            fields.append("")
        else:
            fields[-1] += char
    return [] if line.startswith("#") else fields
