"""What the audit log holds. One event is one log entry: JSON, at most 65,535 bytes.

Rules every field keeps (45 CFR 164.312(b); 164.514(c)):

- patients are 32-hex-digit keyed tokens, never identifiers; staff are opaque uids;
- statement text is the deparsed tree with every constant as ``$n``;
- ``at`` is UTC, RFC 3339 with microseconds and ``Z``.

``version`` is raised with every change of meaning; readers refuse versions they do not know.
"""

from typing import Any

import msgspec

VERSION = 1


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    at: str
    node: str
    version: int = VERSION


class TableUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One table in one statement: which columns at which level, under which residual."""

    table: str
    columns: dict[str, str] = {}
    """column -> highest level the plan can show: full, summary, masked, withheld, mixed, key."""
    residual: str = ""
    """SHA-256 (first 16 hex digits) of the row predicate and column expressions in force."""
    row_filter: bool = False


class SessionStarted(_Event, frozen=True, kw_only=True, tag="session"):
    """A person logged in to the gate."""

    session: str
    person: str
    channel: str
    client: str = ""
    application: str = ""
    authentication: str = "scram-sha-256"
    purpose: str = ""


class LoginRefused(_Event, frozen=True, kw_only=True, tag="login_refused"):
    """A login that failed; ``login`` is the opaque uid, or ``unknown``."""

    login: str
    channel: str
    client: str = ""
    reason: str


class SessionEnded(_Event, frozen=True, kw_only=True, tag="session_ended"):
    session: str
    person: str
    reason: str


class Decision(_Event, frozen=True, kw_only=True, tag="decision"):
    """A statement was decided. On disk before it is forwarded (write) or released (read)."""

    session: str
    person: str
    request: str
    """Identifies the statement execution; release and completed events repeat it."""
    allowed: bool
    action: str
    """select, insert, update, delete, catalog, setting, transaction, refused."""
    purpose: str = ""
    statement: str = ""
    """Deparsed text, constants as ``$n``; empty when it could not be parsed."""
    statement_length: int = 0
    statement_class: str = ""
    reason: str = ""
    """For a refusal: what was refused, in words, without values."""
    tables: tuple[TableUse, ...] = ()
    determining: tuple[str, ...] = ()
    """Policy ids that made up the residuals."""
    policy_set: str = ""
    data_map: str = ""
    roles: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    assignments: tuple[str, ...] = ()
    """What was held when this was decided, each ``role@department#reference!patient`` with the
    patient's token: a permit is asked of one assignment alone, so roles and departments apart are
    not enough to decide it again."""
    grants: tuple[str, ...] = ()
    context: dict[str, str] = {}
    sought: tuple[str, ...] = ()
    """Tokens of patients whose key the statement compares with a value."""
    scope_only: bool = False
    """count(*): which patients were counted is not listed (audit who says so)."""


class EvaluationItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question that an application asked, and its answer (AuthZEN 1.0 evaluation)."""

    action: str
    resource_type: str
    resource: str = ""
    """Token of the resource's id in the application."""
    allowed: bool
    person: str = ""
    """Opaque uid of the subject; empty for somebody the control plane does not know."""
    subject_type: str = "User"
    subject: str = ""
    """Token of the subject, where ``person`` is empty: whom it was that the application named."""
    patient: str = ""
    """Token of the patient whom the question is about."""
    levels: dict[str, str] = {}
    """Category -> level that was answered: what the application may have shown."""
    determining: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    reason: str = ""
    """Code of the reason of a denial."""
    ignored: tuple[str, ...] = ()
    purpose: str = ""
    purpose_claimed: bool = False
    recipient: str = ""
    """To whom it is disclosed, of ``share`` and ``export`` (45 CFR 164.528)."""
    roles: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    assignments: tuple[str, ...] = ()
    """As in ``Decision``."""
    grants: tuple[str, ...] = ()
    context: dict[str, str] = {}


class Evaluation(_Event, frozen=True, kw_only=True, tag="evaluation"):
    """An application's questions, decided by one version; recorded before they are answered.

    A batch is one event, or several with the same ``request`` of at most 48 KiB each, so that
    ``part`` is 0, 1, 2 …
    """

    service: str
    """Opaque uid of the application's account."""
    channel: str
    """``https``, ``unix`` or ``embedded``."""
    request: str
    part: int = 0
    policy_set: str
    """Content hash of the version, as ``chartgate policy versions`` shows it."""
    data_map: str = ""
    trace: str = ""
    """Trace id of W3C Trace Context."""
    items: tuple[EvaluationItem, ...]


class Search(_Event, frozen=True, kw_only=True, tag="search"):
    """An application asked who, what or how (AuthZEN 1.0 search); recorded before it is answered."""

    service: str
    channel: str
    request: str
    part: int = 0
    sought: str
    """``subject``, ``resource`` or ``action``."""
    person: str = ""
    action: str = ""
    resource_type: str = ""
    patient: str = ""
    purpose: str = ""
    policy_set: str
    data_map: str = ""
    results: int = 0
    persons: tuple[str, ...] = ()
    """Uids in the page that was answered; at most 1,000 an event."""
    patients: tuple[str, ...] = ()
    """Tokens of patients in the page that was answered; at most 1,000 an event."""
    found: tuple[str, ...] = ()
    """What else the page named: actions by name; tokens of resources, and of subjects without a uid."""
    subject: str = ""
    """Token of who was asked about, where ``person`` is empty."""
    categories: tuple[str, ...] = ()
    """What of a record was asked about."""
    trace: str = ""


class CallerRefused(_Event, frozen=True, kw_only=True, tag="caller_refused"):
    """An application that could not be authenticated, or asked beyond its scope."""

    service: str = ""
    channel: str
    client: str = ""
    reason: str


class ServiceStep(_Event, frozen=True, kw_only=True, tag="service_step"):
    """An application's account, or one of its credentials, was changed."""

    person: str
    service: str
    step: str
    """``added``, ``scoped``, ``token_issued``, ``token_revoked``, ``deactivated`` …"""
    detail: dict[str, str] = {}


class GrantStep(_Event, frozen=True, kw_only=True, tag="grant_step"):
    """A grant was approved or ended; recorded before it counts.

    Nodes obey a grant only if its approval is such an entry; its end they obey unseen.
    """

    person: str
    """Who approved it, or who ended it."""
    step: str
    """``approved`` or ``revoked``."""
    grant: str
    beneficiary: str = ""
    content: str = ""
    """SHA-256 of the grant's policy text."""
    until: str = ""
    reason: str = ""


class Release(_Event, frozen=True, kw_only=True, tag="release"):
    """Rows about these patients are about to leave. At most 1,000 tokens an event."""

    session: str
    person: str
    request: str
    decision: int
    """Log index of the decision."""
    seen: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    rows: int = 0
    companion: bool = False
    """The tokens come from a companion key query: a superset of what the answer is about."""


class Completed(_Event, frozen=True, kw_only=True, tag="completed"):
    """The statement ended; absent = may have been delivered in full."""

    session: str
    person: str
    request: str
    decision: int
    rows: int = 0
    sqlstate: str = "00000"


class AuditRead(_Event, frozen=True, kw_only=True, tag="audit_read"):
    """Somebody asked the log. ``question`` holds tokens and uids only."""

    person: str
    question: str
    allowed: bool
    parameters: dict[str, str] = {}
    determining: tuple[str, ...] = ()
    policy_set: str = ""


class PolicyStep(_Event, frozen=True, kw_only=True, tag="policy_step"):
    """A version of the policies, or of a data map, went one step further; recorded before it did.

    Nodes obey a version only if its approval and its activation are such entries.
    """

    person: str
    step: str
    """As in ``chartgate.govern.policy_version``: ``pushed``, ``approved``, ``activated`` …"""
    subject: str
    """``policies``, or ``map:`` and the source's name."""
    content: str
    """The content hash of the version's bundle: its identity."""
    proposer: str = ""
    """Of an approval: who pushed the version first."""
    generation: int = 0
    """Of an activation or a rollback: one more than that of what was in force."""
    previous: str = ""
    """Of an activation or a rollback: the content hash of what was in force."""
    detail: dict[str, str] = {}


class PolicyStepRefused(_Event, frozen=True, kw_only=True, tag="policy_step_refused"):
    """A step that was asked for and did not happen."""

    person: str
    step: str
    subject: str
    content: str
    reason: str


class PolicyInForce(_Event, frozen=True, kw_only=True, tag="policy_in_force"):
    """From here on this node decides by this version; entries before it were decided by another."""

    subject: str
    content: str
    generation: int
    activation: int
    """Log index of the activation, in the log that it was recorded in."""
    log: str
    """Origin of that log."""
    policy_set: str
    data_map: str
    previous: str = ""


class Alarm(_Event, frozen=True, kw_only=True, tag="alarm"):
    """Something that only an attack or a fault explains; what it would have changed stayed."""

    what: str
    words: str


class Recovered(_Event, frozen=True, kw_only=True, tag="recovered"):
    """Start-up dropped a torn tail: bytes never acknowledged to anyone."""

    dropped_bytes: int
    dropped_sha256: str
    size: int


class NodeStarted(_Event, frozen=True, kw_only=True, tag="node_started"):
    policy_set: str
    data_map: str
    software: str
    detail: dict[str, Any] = {}


class NodeStopped(_Event, frozen=True, kw_only=True, tag="node_stopped"):
    reason: str


Event = (
    SessionStarted
    | LoginRefused
    | SessionEnded
    | Decision
    | Evaluation
    | Search
    | CallerRefused
    | ServiceStep
    | GrantStep
    | Release
    | Completed
    | AuditRead
    | PolicyStep
    | PolicyStepRefused
    | PolicyInForce
    | Alarm
    | Recovered
    | NodeStarted
    | NodeStopped
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """The bytes of the log entry."""
    return _encoder.encode(event)


def decode(entry: bytes) -> Event:
    """Read a log entry; raises ``msgspec.ValidationError`` when it is not one of ours."""
    return _decoder.decode(entry)
