"""``--patient`` of ``who-can`` and ``explain``: the record of one patient, looked up instead of typed.

Rules kept: the question is recorded with the patient's token before the source is asked, and the
number itself is never recorded; what was looked up counts, and is not shown (45 CFR 164.502(b)): of
the patient, the answer tells her labels alone, which the policies it names would tell anyhow.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chartgate.adapters.audit_sources import running
from chartgate.adapters.keys import KeyStore, TokenKeys
from chartgate.adapters.patient_record import read_patient
from chartgate.adapters.state import Instance, State
from chartgate.app.explain_question import Question
from chartgate.app.explain_reduced import Known
from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.policy_words import LEVELS, records_words
from chartgate.app.tokens import IDENTIFIER, PatientTokens
from chartgate.app.who_can import who_can
from chartgate.datamap.model import DataMap
from chartgate.errors import Misconfigured
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import Person

if TYPE_CHECKING:
    from chartgate.cli.explain_inputs import Setting


def check_asked(number: str | None, category: str | None) -> None:
    """Refuse before anything is recorded what cannot be asked of a patient."""
    if number is None:
        return
    if not number.strip():
        raise Misconfigured("--patient takes a medical record number")
    if not category:
        raise Misconfigured("--patient is asked of a category of her records: name one")


def token_of(number: str, state: State, data_map: DataMap) -> str:
    """What is recorded of the number: its token in events of this year, which ``audit who`` finds."""
    keys = TokenKeys(KeyStore(state.keys_dir), create=True)
    year = datetime.now(UTC).year
    return PatientTokens(keys, data_map.source).token(IDENTIFIER, number, year=year)


def read(
    number: str, state: State, instance: Instance, data_map: DataMap, version: PolicyVersion
) -> PatientRecord:
    """The patient's record, from the instance's source. Ask and record first."""
    with running(state.legacy_pg, instance.legacy, embedded=instance.embedded) as conninfo:
        return read_patient(conninfo, data_map, version.schema, number)


def described(typed: Known, patient: PatientRecord | None) -> Known:
    """The record as typed and as looked up; nothing can be said twice."""
    if patient is None:
        return typed
    if twice := sorted(typed.keys() & patient.known.keys()):
        raise Misconfigured(f"--patient looks {twice[0]} up: --record cannot say it as well")
    return {**patient.known, **typed}


def labels_with(asked: tuple[str, ...], patient: PatientRecord | None) -> tuple[str, ...]:
    """The labels asked about, and those of the patient."""
    return asked if patient is None else patient.labels_with(asked)


def looked_up(patient: PatientRecord | None) -> frozenset[str]:
    """The attributes whose values are not shown."""
    return frozenset() if patient is None else frozenset(patient.known)


def patient_words(patient: PatientRecord) -> list[str]:
    """What is said of the patient, line by line."""
    names = [name.replace("_", " ") for name in sorted(patient.known) if name != "patient"]
    lines = [
        f"Looked up in the source as of now, and not shown: {_listed(names)}.",
        "What a single row says (its author, its department) is left open.",
    ]
    if patient.labels:
        lines.append(f"The patient's record is also {_listed(patient.labels)}: that counts too.")
    return lines


def patient_json(patient: PatientRecord | None) -> dict[str, Any] | None:
    """The same for programs."""
    if patient is None:
        return None
    return {"looked_up": sorted(patient.known), "labels": patient.labels}


def rows_seen(
    found: "Setting", person: Person, question: Question, known: Known
) -> tuple[str, ...]:
    """Which of the patient's rows the person may, and at which level, in words; nothing without a
    patient. The verdict is that of a row that names no author and no department but those typed."""
    if found.patient is None:
        return ()
    return tuple(
        f"Of this patient's rows, {_amount(question, h.rank)}: {records_words(h.when, person.name)}."
        for holder in who_can(found.version, (person,), question, known)
        for h in holder.holdings
        if question.purpose in h.purposes
    ) or ("Of this patient's rows, nothing.",)


def rows_json(found: "Setting", rows: tuple[str, ...]) -> dict[str, Any]:
    """The same for programs, with what was looked up."""
    return {} if found.patient is None else {"patient": patient_json(found.patient), "rows": rows}


def _amount(question: Question, rank: int) -> str:
    return LEVELS[Disclosure(rank)] if question.is_view else "allowed"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
