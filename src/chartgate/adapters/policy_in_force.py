"""What a node has in force, kept in its own state folder with the evidence for it.

Rules kept: a node starts with what it last obeyed, whatever became of the control plane's rows
meanwhile, and never with something older; the file is believed as little as a row is: content,
approval and activation are verified again when it is read. A file that does not verify stops the
start (fail closed): nobody can say what was in force.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chartgate.adapters.policy_files import read_bundle, read_map_bundle
from chartgate.adapters.state import Instance, StagedFile, State
from chartgate.app.entitlement import DecisionPoint
from chartgate.app.map_bundle import open_map
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.policy_orders import Obeyed, Order, Sealed, check_order
from chartgate.datamap.model import DataMap
from chartgate.errors import ChartgateError, Corrupt, Misconfigured
from chartgate.govern.policy_version import MAP, POLICIES
from chartgate.tlog.note import VerifierKey


class _Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    subject: str
    files: dict[str, str]
    approval: bytes
    approval_proof: str
    activation: bytes
    activation_proof: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything a decision is made from, and which versions it is."""

    version: PolicyVersion
    data_map: DataMap
    map_bundle: Bundle
    point: DecisionPoint
    held: dict[str, Obeyed]
    """By subject; what comes from files alone is not in it."""


def trusted_keys(state: State) -> tuple[VerifierKey, ...]:
    """The keys of the logs that are believed here: the node's own, and those it was given."""
    files = [state.log_public_key] if state.log_public_key.exists() else []
    if state.trusted_logs.is_dir():
        files += sorted(state.trusted_logs.glob("*.pub"))
    keys = []
    for file in files:
        try:
            keys.append(VerifierKey.parse(file.read_text(encoding="utf-8").strip()))
        except (OSError, UnicodeDecodeError, ChartgateError) as exc:
            raise Misconfigured(f"the public key {file} cannot be read") from exc
    return tuple(keys)


def held(state: State, subject: str, keys: Sequence[VerifierKey]) -> Obeyed | None:
    """What was in force here last; None when nothing ever was. Raises ``Corrupt``."""
    path = _path(state, subject)
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        order = Order(
            Bundle(kept.files),
            Sealed(kept.approval, kept.approval_proof),
            Sealed(kept.activation, kept.activation_proof),
        )
        return check_order(order, subject, keys, newest=0, is_held=True)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ChartgateError) as exc:
        raise Corrupt(f"what {path} says was in force here cannot be believed: {exc}") from exc


def stage(state: State, subject: str, obeyed: Obeyed) -> StagedFile:
    """Ready to be what was in force here last: on disk already, so that a full disk stops it
    before anything is said; ``take_effect`` makes it so."""
    order = obeyed.order
    kept = _Kept(
        subject=subject,
        files=dict(order.bundle.files),
        approval=order.approval.entry,
        approval_proof=order.approval.proof,
        activation=order.activation.entry,
        activation_proof=order.activation.proof,
    )
    state.in_force_dir.mkdir(mode=0o700, exist_ok=True)
    return StagedFile(_path(state, subject), msgspec.json.encode(kept))


def load_in_force(state: State, *, policies: Path, data_map: Path, source: str) -> Loaded:
    """What this node decides by: what it has in force, else the files it was given."""
    keys = trusted_keys(state)
    subjects = (POLICIES, f"{MAP}{source}")
    found = {s: h for s in subjects if (h := held(state, s, keys)) is not None}
    policy_bundle = _of(found, POLICIES) or read_bundle(policies)
    map_bundle = _of(found, subjects[1]) or read_map_bundle(data_map)
    return load(policy_bundle, map_bundle, found)


def load_for(state: State, instance: Instance) -> Loaded:
    """The same for a command beside a node."""
    return load_in_force(
        state,
        policies=Path(instance.policies),
        data_map=Path(instance.data_map),
        source=instance.source,
    )


def load(policies: Bundle, data_map: Bundle, held: dict[str, Obeyed]) -> Loaded:
    """A decision point from two bundles; raises ``Misconfigured`` where they do not fit."""
    version = open_bundle(policies)
    read = open_map(data_map, version.schema)
    point = DecisionPoint(version.policies, version.schema, version.roles, read)
    return Loaded(version, read, data_map, point, held)


def _of(found: dict[str, Obeyed], subject: str) -> Bundle | None:
    return found[subject].order.bundle if subject in found else None


def _path(state: State, subject: str) -> Path:
    return state.in_force_dir / ("policies.json" if subject == POLICIES else "map.json")
