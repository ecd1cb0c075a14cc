"""psql through the gate: the system's own, and the one that comes with the server's wheel."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from chartgate.adapters import embedded_programs

pytestmark = pytest.mark.system


@pytest.fixture(params=["system", "wheel"])
def psql(request: pytest.FixtureRequest) -> Path:
    if request.param == "system":
        found = shutil.which("psql")
        if found is None:
            pytest.skip("there is no psql on this machine")
        return Path(found)
    folder = embedded_programs._wheel_folder()
    if folder is None:
        pytest.skip("the server's wheel is not installed")
    return folder / "pginstall" / "bin" / "psql"


def test_a_query_shows_rows_and_says_what_was_limited(gate: Any, psql: Path) -> None:
    done = gate.psql(
        "nadams", "-At", "-c", "SELECT patient_id, ssn FROM patient ORDER BY 1 LIMIT 2",
        program=psql,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "1|"
    assert "limited by policy for nadams, purpose TREAT (event " in done.stderr
    assert "ssn not shown" in done.stderr


def test_tables_are_listed_and_described(gate: Any, psql: Path) -> None:
    done = gate.psql("nadams", "-c", r"\d", "-c", r"\d vital_sign", program=psql)
    assert done.returncode == 0, done.stderr
    assert "vital_sign" in done.stdout
    assert "systolic" in done.stdout


def test_a_script_stops_at_a_refusal_with_its_code(gate: Any, psql: Path) -> None:
    done = gate.psql(
        "nadams", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose",
        "-c", "SELECT 1", "-c", r"\copy patient TO '/dev/null'", "-c", "SELECT 2",
        program=psql,
    )  # fmt: skip
    assert done.returncode != 0
    assert "42501" in done.stderr
    assert "copy is not allowed" in done.stderr


def test_statements_in_one_message_are_one_transaction(gate: Any, psql: Path) -> None:
    done = gate.psql(
        "nadams", "-At", "-c",
        "SELECT DISTINCT home_department IS NOT NULL FROM patient; SELECT count(*) > 0 FROM encounter;"
        " SELECT 1 / 0; SELECT 'never'",
        program=psql,
    )  # fmt: skip
    assert "division by zero" in done.stderr
    assert "never" not in done.stdout


def test_a_purpose_comes_by_pgoptions(gate: Any, psql: Path) -> None:
    done = gate.psql(
        "nadams", "-At", "-c", "SHOW chartgate.purpose",
        program=psql, PGOPTIONS="-c chartgate.purpose=ETREAT",
    )  # fmt: skip
    assert done.stdout.strip() == "ETREAT"


def test_psql_fetches_in_parts_only_as_far_as_allowed(gate: Any, psql: Path) -> None:
    done = gate.psql(
        "nadams", "-At", "-v", "FETCH_COUNT=5", "-c", "SELECT patient_id FROM patient ORDER BY 1",
        program=psql,
    )  # fmt: skip
    # Newer versions read row by row; older ones declare a cursor, which is refused by name.
    assert done.stdout.startswith("1\n") or "declare" in done.stderr.lower()
