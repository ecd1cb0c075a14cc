"""The sample clinics, each a process of its own, with a real client and the real service.

What the clinic shows is held against the gate: the same person, the same rows, read with psql.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SERVERS = {
    "fastapi": ["-m", "uvicorn", "--port", "{port}", "fastapi_clinic.app:app"],
    "flask": ["-m", "flask", "--app", "flask_clinic.app", "run", "--port", "{port}"],
    "django": ["django_clinic/serve.py", "{port}"],
}
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Clinic:
    client: httpx.Client
    service: Any

    def get(self, user: str, path: str, **parameters: str) -> httpx.Response:
        return self.client.get(path, params=parameters, auth=self.sign_in(user))

    def sign_in(self, user: str) -> tuple[str, str]:
        return user, self.service.gate.password(user)


@pytest.fixture(scope="module", params=SERVERS)
def clinic(request: pytest.FixtureRequest, service: Any) -> Iterator[Clinic]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [part.format(port=port) for part in SERVERS[request.param]]
    environment = {
        **os.environ,
        "CHARTGATE_STATE": str(service.state),
    }
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=EXAMPLES,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                wait_for(lambda: client.get("/health").status_code == 200, process)
                yield Clinic(client, service)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(test: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read())
        try:
            if test():
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the clinic never answered")


def treated(service: Any, table: str) -> str:
    """A patient of cardiology who is not protected and has such rows there."""
    with service.gate.admin() as link:
        for (key,) in link.execute(
            f"SELECT patient_id::text FROM {table} WHERE department = 'cardiology' "
            "GROUP BY 1 ORDER BY count(*) DESC, 1"
        ):
            if key in service.cardiology and key not in service.protected:
                return str(key)
    raise AssertionError("the hospital has no such patient")


def test_each_sees_her_part(clinic: Clinic) -> None:
    key = treated(clinic.service, "lab_result")
    seen = {user: clinic.get(user, f"/patients/{key}") for user in ("mwelby", "nadams", "rpatel")}
    assert {answer.status_code for answer in seen.values()} == {200}
    physician, nurse, desk = (answer.json() for answer in seen.values())
    assert physician["ssn"].startswith("***-**-")
    assert {"first_name", "last_name", "birth_date", "mrn"} <= physician.keys()
    assert "ssn" not in nurse
    assert desk["last_name"] == physician["last_name"]
    labs = {user: clinic.get(user, f"/patients/{key}/labs") for user in ("mwelby", "rpatel")}
    assert any("value" in lab for lab in labs["mwelby"].json())
    assert labs["rpatel"].status_code == 403
    problem = labs["rpatel"].json()
    assert problem["code"] == "access_denied"
    assert problem["clauses"]
    assert problem["audit"]["index"] > 0


@pytest.mark.parametrize(
    ("page", "table", "columns"),
    [
        ("labs", "lab_result", ("lab_id", "value", "test")),
        ("notes", "clinical_note", ("note_id", "note_text", "written_on")),
    ],
)
def test_no_cell_is_shown_that_the_gate_would_not(
    clinic: Clinic, page: str, table: str, columns: tuple[str, ...]
) -> None:
    key, shown = treated(clinic.service, table), 0
    query = f"SELECT {', '.join(columns)} FROM {table} WHERE patient_id = %s"

    def read(link: Any) -> dict[int, dict[str, str | None]]:
        found = link.execute(query, [key]).fetchall()
        return {
            row[0]: {n: None if v is None else str(v) for n, v in zip(columns, row, strict=True)}
            for row in found
        }

    with clinic.service.gate.admin() as link:
        stored = read(link)
    for user in ("mwelby", "nadams", "rpatel", "bclinician", "oncdoc", "bcoder", "labtech"):
        with clinic.service.gate.connect(user) as link:
            through = read(link)
        answer = clinic.get(user, f"/patients/{key}/{page}")
        if answer.status_code == 403:
            continue
        for thing in answer.json():
            row = thing.get(columns[0])
            if row is None:
                continue  # a person to whom rows have no names: at the gate they have pseudonyms
            for name in columns:
                # The gate knows the row's own department, so that it may show more, never less.
                if name in thing and stored[row][name] is not None:
                    shown += 1
                    assert through[row][name] is not None, user
                    if str(thing[name]) == stored[row][name]:
                        assert through[row][name] == stored[row][name], user
    assert shown


def test_nobody_else_is_let_in(clinic: Clinic) -> None:
    key = clinic.service.cardiology[0]
    assert clinic.client.get(f"/patients/{key}").status_code == 401
    assert clinic.client.get(f"/patients/{key}", auth=("mwelby", "guessed")).status_code == 401
    stranger, nowhere = (clinic.get("oncdoc", f"/patients/{k}/labs") for k in (other(clinic), "0"))
    assert (stranger.status_code, nowhere.status_code) == (403, 403)
    assert stranger.json()["detail"] == nowhere.json()["detail"]


def other(clinic: Clinic) -> str:
    """A patient whom oncology has not treated."""
    with clinic.service.gate.admin() as link:
        found = link.execute(
            "SELECT min(patient_id)::text FROM patient p WHERE NOT EXISTS (SELECT 1 FROM "
            "encounter e WHERE e.patient_id = p.patient_id AND e.department = 'oncology') "
            "AND NOT EXISTS (SELECT 1 FROM care_team c JOIN staff s USING (staff_id) "
            "WHERE c.patient_id = p.patient_id AND s.username = 'oncdoc')"
        ).fetchone()
    return str(found[0])


def test_a_search_shows_whom_she_may_know_of(clinic: Clinic) -> None:
    key = treated(clinic.service, "lab_result")
    name = clinic.get("mwelby", f"/patients/{key}").json()["last_name"]
    found = clinic.get("nadams", "/patients", last_name=name).json()
    assert key in {str(one["patient_id"]) for one in found}
    assert {str(one["patient_id"]) for one in found} <= set(clinic.service.cardiology)
    assert clinic.get("nadams", "/patients", last_name="Nobody").json() == []


def test_the_desk_books_and_others_do_not(clinic: Clinic) -> None:
    key = treated(clinic.service, "lab_result")
    asked = {"department": "cardiology", "starts_at": "2031-01-02T09:30:00"}

    def book(user: str, **more: str) -> httpx.Response:
        return clinic.client.post(
            f"/patients/{key}/appointments", json={**asked, **more}, auth=clinic.sign_in(user)
        )

    try:
        assert book("rpatel").status_code == 201
        assert book("rpatel", department="oncology").status_code == 403
        assert book("bcoder").status_code == 403
    finally:
        with clinic.service.gate.admin() as link:
            gone = link.execute("DELETE FROM appointment WHERE starts_at = '2031-01-02 09:30'")
    assert gone.rowcount == 1
