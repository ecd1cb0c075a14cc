"""What each kind of caller of the log socket may write.

Rules kept:

- Workers write what deciding processes record, gateways what sessions record, commands what people
  at a terminal do; nobody writes what is not her work.
- Applications write evaluations, searches and refused callers alone, of their own account, on a
  node name of their own below this node's. They hold no token key: patients and resources arrive
  as keys in a placeholder (``app.evaluation_events.Keys``) and are made tokens here. An application
  that could ask for tokens could make a table of all of them, and with it read the log.
- An answer that releases PHI is never acknowledged before it is on the medium: ``append`` durability
  is for what names no patient and shows nothing.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

import msgspec

from chartgate.app.evaluation_events import PLACEHOLDER, Tokens
from chartgate.errors import Refused
from chartgate.model.event import (
    Alarm,
    AuditRead,
    CallerRefused,
    Completed,
    Decision,
    Evaluation,
    Event,
    GrantStep,
    LoginRefused,
    NodeStarted,
    NodeStopped,
    PolicyInForce,
    PolicyStep,
    PolicyStepRefused,
    Release,
    Search,
    ServiceStep,
    SessionEnded,
    SessionStarted,
    decode,
)
from chartgate.tlog.tile import MAX_ENTRY

_NODE: Final = (PolicyInForce, Alarm, NodeStarted, NodeStopped, CallerRefused)
_KINDS: Final[dict[str, tuple[type[Event], ...]]] = {
    "command": (
        AuditRead,
        LoginRefused,
        PolicyStep,
        PolicyStepRefused,
        ServiceStep,
        GrantStep,
    ),
    "worker": (Evaluation, Search, *_NODE),
    "gateway": (SessionStarted, LoginRefused, SessionEnded, Decision, Release, Completed, *_NODE),
    "app": (Evaluation, Search, CallerRefused),
}
_SKEW_SECONDS: Final = 300.0
_TOKEN: Final = re.compile(r"[0-9a-f]{32}")
_LARGEST_ERROR: Final = "a log entry has at most 65,535 bytes once its keys are tokens"


class _Item(msgspec.Struct, frozen=True):
    patient: str = ""
    levels: dict[str, str] = {}


class _Envelope(msgspec.Struct, frozen=True):
    """What of an entry must be looked at, whatever it is."""

    kind: str
    items: tuple[_Item, ...] = ()
    patient: str = ""
    patients: tuple[str, ...] = ()
    found: tuple[str, ...] = ()


_envelope: Final = msgspec.json.Decoder(_Envelope)


class _Kind(msgspec.Struct, frozen=True):
    kind: str


_kind: Final = msgspec.json.Decoder(_Kind)

_RELAXED: Final = frozenset({"evaluation", "search", "caller_refused"})


@dataclass(frozen=True, slots=True)
class AppDoor:
    """How applications of other users are let in. ``verify`` answers the uid of the service whose
    token it is, or None; ``tokens`` makes the log's tokens."""

    verify: Callable[[str], Awaitable[str | None]]
    tokens: Tokens
    group: int | None = None
    """Group of the users that applications run as; None: this user's own alone."""
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Admission:
    """What one caller may write."""

    kinds: tuple[type[Event], ...]
    tags: frozenset[str]
    node: str = ""
    service: str = ""
    door: AppDoor | None = None
    is_checked: bool = False
    """Whether each entry is read as the event it is before it is taken."""

    @classmethod
    def of(cls, kind: str, node: str) -> Self:
        """Of a caller of our own; raises ``Refused`` for a kind that there is not."""
        if kind == "app" or kind not in _KINDS:
            raise Refused("not a kind of caller that the log socket knows")
        return cls(_KINDS[kind], _tags(_KINDS[kind]), node, is_checked=kind == "command")

    @classmethod
    def of_app(cls, service: str, node: str, door: AppDoor) -> Self:
        """Of an application whose token was accepted."""
        return cls(_KINDS["app"], _tags(_KINDS["app"]), node, service, door)

    def admitted(self, entries: Sequence[bytes], *, durable: bool) -> Sequence[bytes]:
        """The entries as they are to be recorded; raises ``Refused``."""
        if self.door is not None:
            entries = [self._of_app(entry, self.door) for entry in entries]
        else:
            for entry in entries:
                self._check(entry, whole=self.is_checked)
        if not durable:
            for entry in entries:
                check_relaxed(entry)
        return entries

    def _check(self, entry: bytes, *, whole: bool) -> None:
        # Our own processes could write the files themselves: what they made is not read again.
        try:
            if whole:
                decode(entry)
            kind = _kind.decode(entry).kind
        except msgspec.MsgspecError:
            raise _unknown() from None
        if kind not in self.tags:
            if kind in _ALL_TAGS:
                raise Refused("events of this kind are written by the gate alone")
            raise _unknown()

    def _of_app(self, entry: bytes, door: AppDoor) -> bytes:
        event = _decoded(entry)
        if not isinstance(event, Evaluation | Search | CallerRefused):
            raise Refused("events of this kind are written by the gate alone")
        if event.service != self.service or event.channel != "embedded":
            raise Refused("an application records its own questions alone")
        if not event.node.startswith(f"{self.node}/app-"):
            raise Refused("an application's node name is below that of its node")
        at = _moment(event.at)
        if abs((door.now() - at).total_seconds()) > _SKEW_SECONDS:
            raise Refused("the application's clock and ours do not agree")
        year = at.year

        def token(match: re.Match[bytes]) -> bytes:
            try:
                value = bytes.fromhex(match[2].decode()).decode()
            except ValueError:
                raise Refused("a key that is not text") from None
            return door.tokens.token(match[1].decode(), value, year=year).encode()

        made = PLACEHOLDER.sub(token, entry)
        if len(made) > MAX_ENTRY:
            raise Refused(_LARGEST_ERROR)
        _check_tokens(_decoded(made))
        return made


def check_relaxed(entry: bytes) -> None:
    """Raise ``Refused`` if what the entry records may release PHI."""
    try:
        found = _envelope.decode(entry)
    except msgspec.MsgspecError:
        raise _unknown() from None
    shows = any(
        item.patient or any(level != "withheld" for level in item.levels.values())
        for item in found.items
    )
    if found.kind not in _RELAXED or shows or found.patient or found.patients or found.found:
        raise Refused('durability "append" is not for what releases PHI')


def _check_tokens(event: Event) -> None:
    """No key may be left where a token belongs."""
    tokens: list[str] = []
    match event:
        case Evaluation():
            for item in event.items:
                tokens += (item.patient, item.resource, item.subject)
                tokens += (held.partition("!")[2] for held in item.assignments)
        case Search():
            tokens += (event.patient, *event.patients, event.subject)
            tokens += () if event.sought == "action" else event.found
    if any(token and not _TOKEN.fullmatch(token) for token in tokens):
        raise Refused("a patient or resource that is not in a placeholder")


def _decoded(entry: bytes) -> Event:
    try:
        return decode(entry)
    except msgspec.MsgspecError:
        raise _unknown() from None


def _moment(at: str) -> datetime:
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        raise _unknown() from None
    if found.tzinfo is None or not at.endswith("Z"):
        raise _unknown()
    return found


def _unknown() -> Refused:
    return Refused("not a log entry of a version this gateway knows")


def _tags(kinds: Sequence[type[Event]]) -> frozenset[str]:
    return frozenset(str(kind.__struct_config__.tag) for kind in kinds)


_ALL_TAGS: Final = _tags(Event.__args__)
