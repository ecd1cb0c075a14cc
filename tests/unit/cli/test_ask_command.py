"""``chartgate ask``: a question as applications put it, and its answer in words."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
from typer.testing import CliRunner, Result

from chartgate.adapters.decision_doors import Doors, Opening
from chartgate.adapters.decision_memory import MemoryNode, anyone
from chartgate.adapters.decision_tls import CERTIFICATE, KEY, Tls, own_certificate
from chartgate.app.question import Question
from chartgate.app.ruling import Obligation, Reason, Ruling
from chartgate.cli.ask import question_of
from chartgate.cli.ask_render import obligations
from chartgate.cli.main import app
from chartgate.errors import Misconfigured
from chartgate.model.service import Service

TOKEN = "cgs_00000000_" + "t" * 43
YES = Ruling(
    allowed=True,
    determining=("physician_treats",),
    levels={"labs": "full"},
    policy_set="abcdef0123456789",
    valid_until=1_795_334_400_000,
)
NO = Ruling(
    allowed=False,
    determining=("nothing_leaves_without_a_recipient",),
    levels={"labs": "withheld", "notes": "masked"},
    fields={"lab_result.value": "withheld"},
    reason=Reason("recipient_needed", "Name who is to receive it.", ("164.528(b)(2)",)),
    obligations=(
        Obligation("mask", {"notes": "masked"}),
        Obligation("step_up", values=("urn:chartgate:acr:2",)),
        Obligation("purpose", values=("PATRQT",)),
        Obligation("break_glass", values=("labs",)),
    ),
    ignored=("resource.author",),
    failed=("broken_\x1b[2Jpolicy",),
)


class House:
    """A decision service in a thread, and what it was asked."""

    def __init__(self, root: Path) -> None:
        self.asked: list[Question] = []
        self.ruling = YES
        self.root = root
        self.authority = own_certificate(root / "tls", datetime.now(UTC))
        self.socket = root / "d.sock"
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)
        self._loop.close()

    def _rule(self, question: Question, service: Service) -> Ruling:
        self.asked.append(question)
        return self.ruling

    async def _run(self) -> None:
        tls = Tls(self.root / "tls" / CERTIFICATE, self.root / "tls" / KEY)
        node = MemoryNode(self._rule, {TOKEN: anyone("ehr")})
        doors = Doors(node, Opening(port=0, tls=tls, unix=self.socket), pager_key=bytes(32))
        await doors.open()
        self.url = f"https://127.0.0.1:{doors.port}"
        self._ready.set()
        await self._ending.wait()
        await doors.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        yield house


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHARTGATE_URL", "CHARTGATE_TOKEN", "CHARTGATE_TOKEN_FILE", "CHARTGATE_STATE"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["ask", *arguments], env=environment)


def test_what_is_allowed_is_said_with_its_level_and_its_place_in_the_log(
    house: House, token_file: Path
) -> None:
    asked = ["mwelby", "view", "--patient", "17", "--category", "labs", "--purpose", "TREAT"]
    where = ["--url", house.url, "--token-file", str(token_file), "--ca", str(house.authority)]
    found = run(*asked, *where)
    assert found.exit_code == 0, found.output
    assert "Allowed: mwelby, view, labs of patient 17" in found.output
    for words in ("full", "everything", "physician_treats", "abcdef012345", "event 0 of memory"):
        assert words in found.output
    (question,) = house.asked
    assert question.subject.id == "mwelby"
    assert question.resource.properties == {"patient": "17", "categories": ["labs"]}
    assert question.context == {"purpose": "TREAT"}


def test_what_is_refused_is_said_with_its_reason_and_what_would_change_it(
    house: House, token_file: Path
) -> None:
    house.ruling = NO
    found = run(
        "mwelby", "share", "--patient", "17", "--category", "labs", "--url",
        f"unix:{house.socket}", "--token-file", str(token_file),
    )  # fmt: skip
    assert found.exit_code == 1
    words = " ".join(found.output.split())
    assert "Refused: mwelby, share, labs of patient 17" in words
    assert "Name who is to receive it. (164.528(b)(2))" in words
    assert "notes masked" in words
    assert "lab_result.value withheld" in words
    assert "To be shown at most: notes masked." in words
    assert "Signing in again would change this: with a second factor." in words
    assert "Another purpose would change this: PATRQT." in words
    assert "The emergency procedure is open to this person for labs." in words
    assert "Not believed of this application: resource.author." in words
    assert "\x1b[2J" not in found.output


def test_the_answer_for_programs_is_the_services_own(house: House, token_file: Path) -> None:
    house.ruling = NO
    found = run(
        "mwelby", "view", "--patient", "17", "--category", "labs", "--json", "--ca",
        str(house.authority), CHARTGATE_URL=house.url, CHARTGATE_TOKEN_FILE=str(token_file),
    )  # fmt: skip
    assert found.exit_code == 1
    told = json.loads(found.output)
    assert told["decision"] is False
    assert told["context"]["reason"]["code"] == "recipient_needed"


def test_a_token_that_is_nobodys_is_told_so(house: House) -> None:
    where = {"CHARTGATE_URL": house.url, "CHARTGATE_TOKEN": "cgs_11111111_" + "x" * 43}
    found = run("a", "view", "--category", "labs", "--ca", str(house.authority), **where)
    assert found.exit_code == 1
    assert "does not know this service token" in found.output
    assert house.asked == []


def test_a_service_that_is_not_trusted_is_asked_nothing(house: House, token_file: Path) -> None:
    found = run("a", "view", "--url", house.url, "--token-file", str(token_file))
    assert found.exit_code == 1
    assert "is not trusted" in found.output
    assert house.asked == []


def test_a_service_that_is_not_there_is_said_to_be_so(token_file: Path, tmp_path: Path) -> None:
    for url in ("https://127.0.0.1:9", f"unix:{tmp_path / 'none.sock'}"):
        found = run("a", "view", "--url", url, "--token-file", str(token_file))
        assert found.exit_code == 1
        assert "does not answer at" in found.output


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.org", "without TLS only this machine"),
        ("ftp://example.org", "an address is https://"),
        ("https://example.org:99999", "the port of an address"),
    ],
)
def test_an_address_that_is_none_is_a_fault(url: str, words: str, token_file: Path) -> None:
    found = run("a", "view", "--url", url, "--token-file", str(token_file))
    assert found.exit_code == 1
    assert words in found.output


def test_a_token_file_that_others_can_read_is_not_used(house: House, token_file: Path) -> None:
    token_file.chmod(0o644)
    found = run("a", "view", "--url", house.url, "--token-file", str(token_file))
    assert found.exit_code == 1
    assert "can be read by others" in found.output
    assert TOKEN not in found.output


def test_without_a_token_it_is_said_how_to_get_one(house: House, tmp_path: Path) -> None:
    found = run("a", "view", "--url", house.url, "--state", str(tmp_path / "nothing"))
    assert found.exit_code == 1
    assert "holds no Chartgate instance" in found.output


def test_what_is_said_beside_counts_as_what_it_is_written_as() -> None:
    question = question_of(
        "a", "view", resource="AuditLog:log",
        said=["context.acr=2", "resource.author=nadams", "subject.x=[1]", "action.y=true"],
    )  # fmt: skip
    assert question == {
        "subject": {"type": "User", "id": "a", "properties": {"x": [1]}},
        "action": {"name": "view", "properties": {"y": True}},
        "resource": {"type": "AuditLog", "id": "log", "properties": {"author": "nadams"}},
        "context": {"acr": 2},
    }


@pytest.mark.parametrize("said", ["acr=2", "context.=2", "context.acr", "place.acr=2"])
def test_what_is_said_of_nothing_is_a_fault(said: str) -> None:
    with pytest.raises(Misconfigured, match="--say is"):
        question_of("a", "view", said=[said])


@pytest.mark.parametrize("resource", ["Record", "Record:", ":a"])
def test_a_resource_has_a_type_and_an_id(resource: str) -> None:
    with pytest.raises(Misconfigured, match="--resource is"):
        question_of("a", "view", resource=resource)


def test_an_obligation_that_is_not_known_is_told_all_the_same() -> None:
    strange: list[Any] = [{"type": "notify", "values": ["owner"]}]
    assert list(obligations(strange)) == ["To be done beside: notify owner."]
    assert list(obligations("x")) == []
