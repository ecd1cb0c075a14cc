"""What is answered to a question, and everything the log is to hold of it.

A ruling holds the patient's key: it goes from memory to memory. ``authzen`` says what of it a caller
reads, ``evaluation_events`` what the log keeps.
"""

from typing import Final

import msgspec


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why not, in words a person can act on, without values; ``clauses`` of 45 CFR or 42 CFR."""

    code: str
    text: str
    clauses: tuple[str, ...] = ()


class Obligation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What whoever enforces must do, or what would change the answer.

    ``mask``: show ``categories`` no better than at the level given. ``step_up``: sign in again with
    one of ``values`` (authentication context classes). ``purpose``: one of ``values`` would do.
    ``break_glass``: the emergency procedure is open to this person.
    """

    type: str
    categories: dict[str, str] = {}
    values: tuple[str, ...] = ()


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """One question, decided at one instant by one version."""

    allowed: bool
    determining: tuple[str, ...] = ()
    """Ids of the policies and grants that made the answer."""
    failed: tuple[str, ...] = ()
    """Ids of policies that could not be evaluated; a forbid among them denies."""
    levels: dict[str, str] = {}
    """Category -> full, summary, masked or withheld: the patient's own labels are counted in."""
    fields: dict[str, str] = {}
    """Field asked about -> level."""
    obligations: tuple[Obligation, ...] = ()
    reason: Reason | None = None
    """On a denial."""
    ignored: tuple[str, ...] = ()
    """Dotted names of what the caller said and was not believed; only names the schema knows."""
    policy_set: str = ""
    data_map: str = ""
    valid_until: int | None = None
    """Milliseconds since the epoch: from then on an assignment, grant or clock could change it."""

    # For the log.
    shown: dict[str, str] = {}
    """Category -> the highest level that was answered of anything of it: ``levels`` tells the lowest
    of several fields."""
    person: str = ""
    """Opaque uid; empty for somebody the control plane does not know."""
    roles: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    held: tuple[tuple[str, str], ...] = ()
    """Live assignments as ``Assignment.held()`` without the patient, and the patient's key."""
    grants: tuple[str, ...] = ()
    """Ids of the grants among ``determining``."""
    purpose: str = ""
    purpose_claimed: bool = False
    patient: str = ""
    """Key of the patient in the source."""
    recipient: str = ""
    context: dict[str, str] = {}
    """What of the context was believed, as Cedar text, without free text."""
    is_phi: bool = True
    """Whether an answer releases, or may release, what belongs to a patient."""


NOTHING_KNOWN: Final = Ruling(allowed=False)
