"""``chartgate serve`` and the commands about applications, as a person on call uses them."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chartgate.cli.main import app
from chartgate.demo.folder import reset

pytestmark = [pytest.mark.system, pytest.mark.slow]

COMMAND = [sys.executable, "-P", "-m", "chartgate"]
NOTHING = {
    f"CHARTGATE_{name}": None
    for name in ("STATE", "PERSON", "PASSWORD", "PASSWORD_FILE", "URL", "TOKEN", "TOKEN_FILE")
}


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("PG", "CHARTGATE_"))}


def chartgate(*arguments: str | Path) -> Result:
    """A command, in this process: its imports are paid for once."""
    return CliRunner().invoke(app, [str(one) for one in arguments], env=NOTHING)


def told(done: Result) -> Any:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def serving(*arguments: str | Path) -> Iterator[dict[str, Any]]:
    """What runs until it is interrupted, and the JSON that it says when it is ready."""
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments), "--json"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n" or line.startswith('{"'):
                break
        try:
            assert lines, process.stderr.read()
            yield json.loads("".join(lines))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(40) == 0
            finally:
                process.kill()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("s") / "state"
    yield root
    reset(root)


@pytest.fixture(scope="class")
def patient(state: Path) -> Iterator[str]:
    """The patient whom the demo speaks of, while it runs."""
    with serving("demo", "--port", "0", "--state", state) as sheet:
        yield sheet["decisions"]["patient"]


def soon(reached: Callable[[], bool]) -> bool:
    """Whether it is so within a second, and a command's own time."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        if reached():
            return True
    return False


class TestBesideTheDemo:
    def test_an_application_is_let_in_scoped_cut_off_and_all_of_it_is_on_record(
        self, state: Path, patient: str
    ) -> None:
        here = ("--state", state)
        officer = (*here, "--as", "sofficer")
        asked = ("ask", "mwelby", "view", "--patient", patient, "--category", "labs", *here)
        assert "Allowed: mwelby, view, labs" in chartgate(*asked).stdout

        # (1) an account, least first; nobody but the security officer opens one
        made = chartgate("service", "add", "kiosk", "--action", "view", *here, "--as", "mwelby")
        assert made.exit_code == 1
        assert "policy does not let mwelby administer services" in made.stderr
        strange = chartgate("service", "add", "kiosk", "--action", "veiw", *officer)
        assert "the policies know no action veiw" in strange.stderr
        scope = ("--action", "view_summary", "--category", "labs,imaging")
        assert told(chartgate("service", "add", "kiosk", *scope, *officer, "--json"))["uid"]
        mute = chartgate("service", "list", *here)
        assert mute.exit_code == 1
        assert "kiosk: no token or certificate counts" in mute.stdout

        # (2) a token, in a file that only its owner can read
        file = state.parent / "kiosk.token"
        issued = told(chartgate("service", "token", "kiosk", "--out", file, *officer, "--json"))
        assert file.stat().st_mode & 0o777 == 0o600
        assert issued["id"] in file.read_text()
        by_kiosk = (*asked, "--token-file", file, "--json")

        def answered() -> Any:
            done = chartgate(*by_kiosk)
            return json.loads(done.stdout) if done.stdout else done.stderr

        # (3) what its scope does not list, it may not ask; a wider scope counts at once
        assert "does not cover that action" in answered()
        wider = ("--action", "view", "--category", "labs")
        assert told(chartgate("service", "scope", "kiosk", *wider, *officer, "--json"))["scope"]
        assert soon(lambda: isinstance(answered(), dict) and answered()["decision"])
        entry = answered()["context"]["audit"]["index"]

        # (4) revoked: nobody knows it any more
        assert told(chartgate("service", "revoke", issued["id"], *officer, "--json"))["ended"]
        assert soon(lambda: "does not know this service token" in str(answered()))

        # (5) all of it is in the log
        tail = chartgate("audit", "tail", "-n", "60", "--json", *here)
        rows = {row["index"]: row for row in map(json.loads, tail.stdout.splitlines())}
        assert rows[entry]["kind"] == "evaluation"
        steps = " ".join(row["text"] for row in rows.values() if row["kind"] == "service step")
        for step in ("added", "token issued", "scoped", "token revoked"):
            assert step in steps

        # (6) one instance, one decision service
        second = chartgate("serve", "--state", state, "--listen", "127.0.0.1:0")
        assert second.exit_code == 1
        assert "runs already at https://" in second.stderr

    def test_a_grant_opens_what_it_says_until_it_is_ended(self, state: Path, patient: str) -> None:
        here = ("--state", state)
        asked = ("ask", "rpatel", "view", "--patient", patient, "--category", "labs", *here)
        given = ("rpatel", "--action", "view", "--category", "labs", "--patient", patient)
        why = ("--reason", "covers the ward desk")
        assert chartgate(*asked).exit_code == 1
        refused = chartgate("grant", "issue", *given, *why, *here, "--as", "mwelby")
        assert "policy does not let mwelby give or end access" in refused.stderr
        grant = told(chartgate("grant", "issue", *given, *why, *here, "--as", "pofficer", "--json"))
        assert soon(lambda: chartgate(*asked).exit_code == 0)
        assert grant["grant"] in chartgate(*asked).stdout
        (listed,) = told(chartgate("grant", "list", *here, "--json"))
        assert (listed["person"], listed["approved_by"]) == ("rpatel", "pofficer")
        told(chartgate("grant", "revoke", grant["grant"], *here, "--as", "pofficer", "--json"))
        assert soon(lambda: chartgate(*asked).exit_code == 1)


def test_an_instance_is_served_without_the_demo(state: Path) -> None:
    with serving("serve", "--state", state, "--listen", "127.0.0.1:0", "--workers", "2") as where:
        assert len(where["pids"]) == 3
        found = chartgate("ask", "mwelby", "view", "--state", state, "--category", "labs")
        assert found.exit_code == 1
        assert "no service token" in found.stderr
    assert json.loads((state / "instance.json").read_text())["decisions"] == ""
    assert "The log is what was signed" in chartgate("audit", "verify", "--state", state).stdout


def test_a_folder_of_policies_is_served_by_itself(tmp_path: Path, project_root: Path) -> None:
    cases = project_root / "tests/cases/authzen/certification"
    state = tmp_path / "plain"
    files = ("--policies", cases, "--entities", cases / "entities.json")
    known = ("--base-url", "https://pdp.example.org")
    with serving("serve", *files, *known, "--state", state, "--listen", "127.0.0.1:0") as where:
        trust = ssl.create_default_context(cafile=where["ca"])
        told_where = f"{where['url']}/.well-known/authzen-configuration"
        with urllib.request.urlopen(told_where, context=trust, timeout=10) as page:
            assert json.load(page)["policy_decision_point"] == known[1]
        asked = ("ask", "alice", "can_read", "--resource", "record:record-1", "--state", state)
        answer = json.loads(chartgate(*asked, "--json").stdout)
        assert isinstance(answer["decision"], bool)
        assert answer["context"]["audit"]["log"] == "chartgate.plain/log"
        by_socket = chartgate(*asked, "--url", f"unix:{where['unix']}", "--json")
        assert json.loads(by_socket.stdout)["decision"] is answer["decision"]
    assert not Path(where["token_file"]).exists()
    assert "The log is what was signed" in chartgate("audit", "verify", "--state", state).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--listen", "8443"), "--listen is HOST:PORT"),
        (("--listen", "127.0.0.1:99999"), "--listen is HOST:PORT"),
        (("--policies", "."), "name with --state a folder"),
        (("--services", "x.toml"), "--entities and --services go with --policies"),
        (("--policies", "/nope", "--state", "s"), "--policies: there is no folder /nope"),
        (("--policies", ".", "--state", "s", "--services", "/n"), "there is no file /n"),
        (("--client-ca", "/n", "--listen", "127.0.0.1:0"), "the callers' authority /n"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(
    arguments: tuple[str, ...], words: str, state: Path, tmp_path: Path
) -> None:
    where = () if "--policies" in arguments else ("--state", str(state))
    done = chartgate("serve", *arguments, *where)
    assert done.exit_code == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_in_the_way_of_the_socket_is_named_and_stays(state: Path, tmp_path: Path) -> None:
    mine = tmp_path / "app.py"
    mine.write_text("kept")
    where = ("--state", state, "--listen", "127.0.0.1:0", "--unix", mine)
    done = chartgate("serve", *where)
    assert done.exit_code == 1
    assert "is in the way and is not a socket" in done.stderr
    assert mine.read_text() == "kept"
