"""A demo with its decision service, shared by the tests of the SDK: everything in it is real.

``service.state`` its folder, ``service.gate`` the demo as of ``tests/system/conftest.py``;
``service.patients`` keys of patients by what they are to Marcus Welby and the rest of cardiology.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chartgate.demo.applications import Decisions
from chartgate.sdk import Chartgate, Record, beside


@dataclass(frozen=True, slots=True)
class Service:
    """The demo, and where it is."""

    gate: Any
    state: Path
    cardiology: tuple[str, ...]
    """Patients whom cardiology has treated."""
    others: tuple[str, ...]
    """Patients whom it has not."""
    protected: frozenset[str]
    """Patients with the label ``protected_person``."""


def answering(state: Path) -> None:
    """Returns once the decision service answers: it starts beside the gate."""
    with Chartgate(**beside(state), timeout=30) as gate:
        gate.decide("nadams", "view", Record(category="technical"), strict=True)


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    load_hospital: Callable[..., None],
    open_gate: Callable[..., AbstractContextManager[Any]],
) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("sdk")
    load_hospital(root, patients=120)
    with open_gate(root, decisions=Decisions(0)) as gate:
        answering(gate.state.root)
        with gate.admin() as link:
            treated = link.execute(
                "SELECT DISTINCT patient_id::text FROM encounter WHERE department = 'cardiology' "
                "ORDER BY 1"
            ).fetchall()
            every = link.execute("SELECT patient_id::text FROM patient ORDER BY 1").fetchall()
            flagged = link.execute(
                "SELECT patient_id::text FROM patient_flag WHERE flag IN ('vip', 'employee')"
            ).fetchall()
        ours = tuple(key for (key,) in treated)
        yield Service(
            gate,
            gate.state.root,
            ours,
            tuple(key for (key,) in every if key not in ours),
            frozenset(key for (key,) in flagged),
        )
