"""A node without a control plane: the same rules, from a folder."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chartgate.adapters.control_plane_services import Services, Token
from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.node_plain import PlainNode, load_services
from chartgate.adapters.service_accounts import new_token
from chartgate.adapters.signing import load_or_create_signer
from chartgate.app.authzen_paging import Page
from chartgate.app.authzen_search import ActionSearch, Sought, SubjectSearch, Wanted
from chartgate.app.evaluation_events import Keys
from chartgate.app.node_asked import (
    Asked,
    Caller,
    NodeNotReady,
    SearchRefused,
    Semantic,
    UnknownCaller,
)
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.errors import LogUnavailable, Misconfigured
from chartgate.model.event import Evaluation, NodeStarted, PolicyInForce, Search, decode
from chartgate.model.service import EVERYTHING, Scope, Service

pytestmark = pytest.mark.system

FOLDER = Path(__file__).resolve().parents[1] / "cases" / "authzen" / "certification"
SERVICE = Service("s_0123456789abcdef", "app", True, EVERYTHING)
CALLER = Caller(SERVICE, "https")


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
async def log(tmp_path: Path, log_dir: Path) -> AsyncIterator[LogWriter]:
    made = LogWriter(LogFiles.open(log_dir, load_or_create_signer(tmp_path / "log.key", "t/log")))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "policies"))


@pytest.fixture
async def node(log: LogWriter, folder: Path) -> AsyncIterator[PlainNode]:
    services = Services({SERVICE.uid: SERVICE}, {SERVICE.name: SERVICE})
    made = PlainNode(
        "n/decide-1",
        "t/log",
        log,
        Keys(),
        policies=folder,
        entities=folder / "entities.json",
        services=services,
    )
    async with made:
        yield made


def ask(action: str, who: str = "alice", what: str = "record-1") -> Question:
    return Question(Subject("user", who), Action(action), Resource("record", what))


def events(log_dir: Path) -> list[object]:
    return [decode(entry) for _, entry in LogReader(log_dir).entries(0)]


async def test_an_answer_names_its_entry_in_the_log(node: PlainNode, log_dir: Path) -> None:
    answered = await node.answer(Asked((ask("read"),), "r-1", trace="ab" * 16), CALLER)
    event = events(log_dir)[answered.index]
    assert isinstance(event, Evaluation)
    assert (event.request, event.service, event.channel) == ("r-1", SERVICE.uid, "https")
    assert event.items[0].allowed == answered.rulings[0].allowed
    assert answered.log == "t/log"


async def test_an_answer_says_how_long_the_log_took_and_what_waits_is_measured(
    node: PlainNode,
) -> None:
    answered = await node.answer(Asked((ask("read"),), "r1"), CALLER)
    assert answered.record_seconds > 0
    assert node.measures() == {"log_queue": 0.0}


async def test_a_batch_ends_where_its_semantic_says(node: PlainNode) -> None:
    questions = tuple(ask(action) for action in ("read", "nothing", "write", "read"))
    each = (await node.answer(Asked(questions, "r"), CALLER)).rulings
    said = [ruling.allowed for ruling in each]
    assert len(said) == 4
    assert True in said
    assert False in said
    for semantic, last in (
        (Semantic.DENY_ON_FIRST_DENY, False),
        (Semantic.PERMIT_ON_FIRST_PERMIT, True),
    ):
        found = await node.answer(Asked(questions, "r", semantic), CALLER)
        assert [r.allowed for r in found.rulings] == said[: said.index(last) + 1]


async def test_a_large_batch_is_one_request_of_many_parts(node: PlainNode, log_dir: Path) -> None:
    questions = tuple(ask("read", what=f"record-{n}") for n in range(1_000))
    answered = await node.answer(Asked(questions, "r-big"), CALLER)
    assert len(answered.rulings) == 1_000
    found = [e for e in events(log_dir) if isinstance(e, Evaluation) and e.request == "r-big"]
    assert [event.part for event in found] == list(range(len(found)))
    assert sum(len(event.items) for event in found) == 1_000


async def test_searches_are_decided_recorded_and_paged(node: PlainNode, log_dir: Path) -> None:
    everybody = SubjectSearch(Wanted("user"), Action("read"), Resource("record", "record-1"))
    first = await node.search(Sought(everybody, Page(1), b""), CALLER, request="s-1")
    rest = await node.search(
        Sought(everybody, Page(50, first.found.names[-1]), b""), CALLER, request="s-2"
    )
    names = first.found.names + rest.found.names
    assert first.found.more
    assert names == tuple(sorted(names))
    for name in ("alice", "bob", "nobody"):
        (ruling,) = (await node.answer(Asked((ask("read", name),), "r"), CALLER)).rulings
        assert ruling.allowed == (name in names)
    actions = ActionSearch(Subject("user", "alice"), Resource("record", "record-1"))
    found = await node.search(Sought(actions, Page(50), b""), CALLER, request="s-3")
    assert "read" in found.found.names
    event = events(log_dir)[first.index]
    assert isinstance(event, Search)
    assert (event.sought, event.results, event.action) == ("subject", 1, "read")


async def test_who_may_not_search_does_not(node: PlainNode) -> None:
    limited = Caller(Service("s_1", "x", True, Scope(actions=frozenset("*"))), "https")
    wanted = Sought(ActionSearch(Subject("user", "alice"), Resource("record", "1")), Page(1), b"")
    with pytest.raises(SearchRefused):
        await node.search(wanted, limited, request="s")


async def test_a_changed_folder_is_in_force_once_it_is_recorded(
    node: PlainNode, folder: Path, log_dir: Path
) -> None:
    before = (await node.answer(Asked((ask("read"),), "r"), CALLER)).rulings[0]
    assert before.allowed
    rules = folder / "rules.cedar"
    rules.write_text('@id("none") forbid (principal, action, resource);\n', "utf-8")
    await node.reload()
    after = await node.answer(Asked((ask("read"),), "r"), CALLER)
    assert not after.rulings[0].allowed
    kinds = [type(event) for event in events(log_dir)]
    assert kinds == [NodeStarted, Evaluation, PolicyInForce, Evaluation]
    rules.write_text("permit (principal, action, nothing);\n", "utf-8")
    with pytest.raises(Misconfigured):
        await node.reload()
    assert not (await node.answer(Asked((ask("read"),), "r"), CALLER)).rulings[0].allowed


async def test_without_a_log_there_is_no_answer(node: PlainNode, log: LogWriter) -> None:
    await log.close()
    with pytest.raises(LogUnavailable):
        await node.answer(Asked((ask("read"),), "r"), CALLER)


async def test_a_node_that_is_not_started_decides_nothing(folder: Path, log: LogWriter) -> None:
    node = PlainNode("n", "t/log", log, Keys(), policies=folder, services=Services())
    assert node.is_ready().reasons
    async with node:
        assert node.is_ready()
    with pytest.raises((NodeNotReady, AssertionError)):
        await node.answer(Asked((ask("read"),), "r"), CALLER)


def test_services_of_a_file_are_known_by_digest(tmp_path: Path) -> None:
    number, text = new_token()
    path = tmp_path / "services.toml"
    digest = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(
        f'[services.todo]\nactions = ["*"]\ncertificates = ["{"ab" * 32}"]\n'
        f'tokens = [{{ id = "{number}", sha256 = "{digest}", valid_until = 2031-01-01T00:00:00Z }}]\n',
        "utf-8",
    )
    services = load_services(path)
    now = datetime(2030, 1, 1, tzinfo=UTC)
    found = services.of_token(text, at=now)
    assert (found.name, found.scope.admits_action("read")) == ("todo", True)
    assert services.of_certificate("ab" * 32, "") is found
    for wrong in (text[:-1] + ("A" if text[-1] != "A" else "B"), "cgs_", "", text + "\n"):
        with pytest.raises(UnknownCaller):
            services.of_token(wrong, at=now)
    with pytest.raises(UnknownCaller, match="ended"):
        services.of_token(text, at=now + timedelta(days=400))
    path.write_text("[services.todo]\nanything = 1\n", "utf-8")
    with pytest.raises(Misconfigured):
        load_services(path)


def test_a_closed_service_is_nobody() -> None:
    service = Service("s_1", "x", False)
    digest = hashlib.sha256(b"t").digest()
    until = datetime(2031, 1, 1, tzinfo=UTC)
    services = Services(
        {"s_1": service}, {"x": service}, {digest: Token("t", "s_1", digest, until)}
    )
    with pytest.raises(UnknownCaller):
        services.named("x")


async def test_decisions_wait_while_a_version_takes_its_place(
    node: PlainNode, folder: Path
) -> None:
    (folder / "rules.cedar").write_text(
        '@id("none") forbid (principal, action, resource);\n', "utf-8"
    )

    async def many() -> list[bool]:
        found = []
        for _ in range(50):
            answered = await node.answer(Asked((ask("read"),), "r"), CALLER)
            found.append(answered.rulings[0].allowed)
        return found

    answers, _ = await asyncio.gather(many(), node.reload())
    assert answers == sorted(answers, reverse=True)
