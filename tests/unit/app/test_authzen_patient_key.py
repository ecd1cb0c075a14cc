"""A patient's key is an id: what is remembered of callers' words is bounded in size, not in number alone."""

import json
from typing import Any

import pytest

from chartgate.app.authzen import parse_evaluation
from chartgate.app.authzen_batch import BadItem, Batch, parse_evaluations
from chartgate.app.authzen_errors import BadRequest
from chartgate.app.authzen_paging import Pager
from chartgate.app.authzen_search import parse_action_search, parse_resource_search


def about(patient: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "User", "id": "alice"},
        "action": {"name": "view"},
        "resource": {"type": "Record", "id": "1", "properties": {"patient": patient}},
    }


@pytest.mark.parametrize("patient", ["a", "é" * 1_024, 7, None])
def test_a_key_as_long_as_an_id_is_read(patient: Any) -> None:
    question = parse_evaluation(json.dumps(about(patient)).encode())
    assert question.resource.properties == {"patient": patient}


def test_a_longer_one_is_refused_wherever_it_is_asked() -> None:
    body, pager = json.dumps(about("7" * 1_025)).encode(), Pager(bytes(32))
    for parse in (
        parse_evaluation,
        parse_evaluations,
        lambda data: parse_resource_search(data, pager, "s"),
        lambda data: parse_action_search(data, pager, "s"),
    ):
        with pytest.raises(BadRequest, match=r"resource\.properties\.patient: expected at most"):
            parse(body)


def test_in_a_batch_it_is_its_own_item_that_is_refused() -> None:
    items = [{"resource": about(key)["resource"]} for key in ("7", "7" * 1_025)]
    batch = parse_evaluations(json.dumps({**about("1"), "evaluations": items}).encode())
    assert isinstance(batch, Batch)
    assert [isinstance(item, BadItem) for item in batch.items] == [False, True]
