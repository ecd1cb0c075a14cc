"""The demo's people and their passwords: made at each start, ended with the demo.

The rule kept: a password exists in a libpq passfile that only the owner can read, and as a verifier
with an end in the control plane; nowhere else.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from chartgate.adapters.control_plane import open_control_plane
from chartgate.adapters.policy_desk import keep_roles
from chartgate.adapters.state import Instance, State
from chartgate.app.rolebook import RoleBook
from chartgate.demo.people import EVERYBODY
from chartgate.demo.tour import find_subject
from chartgate.pgwire.scram import mint_verifier

_CREDENTIAL_HOURS: Final = 24


@contextmanager
def people_of(state: State, conninfo: str, roles: RoleBook, instance: Instance) -> Iterator[None]:
    """The demo's people in the control plane, with passwords that end with the demo."""
    now = datetime.now(UTC)
    lines = []
    verifiers = {}
    with open_control_plane(conninfo) as control:
        keep_roles(control, roles)
        known = control.snapshot().persons
        subject = find_subject(instance.legacy, instance.source)
        for person in EVERYBODY:
            if person.about_subject and subject is None:  # these data have nobody to speak of
                continue
            if person.role not in roles.roles:  # the version in force is somebody's own
                continue
            control.upsert_person(person.username, person.full_name)
            held = known.get(person.username)
            if held is None or not held.live(at=now):
                control.assign(
                    person.username,
                    person.role,
                    person.department or None,
                    valid_from=now,
                    valid_until=now + timedelta(hours=person.hours) if person.hours else None,
                    reference=person.reference,
                    patient=subject.key if subject and person.about_subject else None,
                )
            password = secrets.token_urlsafe(18)
            verifier = mint_verifier(password, salt=secrets.token_bytes(16))
            control.set_credential(
                person.username, verifier, now + timedelta(hours=_CREDENTIAL_HOURS)
            )
            verifiers[person.username] = verifier
            lines.append(f"*:*:{instance.database}:{person.username}:{password}\n")
    _write_private(state.passfile, "".join(lines))
    try:
        yield
    finally:
        state.passfile.unlink(missing_ok=True)
        with contextlib.suppress(Exception), open_control_plane(conninfo) as control:
            for name, verifier in verifiers.items():
                control.set_credential(name, verifier, now)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
