"""The clients and the embedded engine, against a real service: the same answers on every way."""

from typing import Any

import pytest

from chartgate.model.disclosure import Disclosure
from chartgate.sdk import Chartgate, Record
from chartgate.sdk.beside import beside

pytestmark = pytest.mark.system


@pytest.fixture(params=["https", "unix"])
def gate(request: pytest.FixtureRequest, service: Any) -> Any:
    with Chartgate(**beside(service.state, over=request.param)) as made:
        yield made


def test_who_treats_a_patient_sees_and_who_does_not_is_told_why(gate: Any, service: Any) -> None:
    ann = next(key for key in service.cardiology if key not in service.protected)
    labs = Record(patient=ann, category="labs")
    nurse = gate.decide("nadams", "view", labs)
    assert nurse.allowed, nurse
    assert nurse.level("labs") is Disclosure.FULL
    assert nurse.policies == ("nurse_cares",)
    assert nurse.audit_index is not None
    assert nurse.policy_set
    desk = gate.decide("rpatel", "view", labs)
    assert not desk.allowed
    assert desk.reason is not None
    assert desk.reason.code in ("no_permit", "not_allowed")
    assert desk.reason.clauses
    assert desk.audit_index > nurse.audit_index


def test_the_entry_that_is_named_is_in_the_log(gate: Any, service: Any) -> None:
    key = service.cardiology[0]
    decision = gate.decide("nadams", "view", Record(patient=key, category="labs"))
    event = dict(service.gate.events(decision.audit_index))[decision.audit_index]
    assert event.items[0].patient in service.gate.tokens([key])
