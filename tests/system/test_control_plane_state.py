"""The state folder: closed to others, saved whole, told apart from a folder that is none."""

from pathlib import Path

import pytest

from chartgate.adapters.state import ENVIRONMENT, Instance, RolledBack, State, default_root
from chartgate.errors import Misconfigured
from chartgate.tlog.checkpoint import Checkpoint, sign_checkpoint
from chartgate.tlog.note import ED25519, VerifierKey

INSTANCE = Instance(
    node="n",
    origin="o",
    source="hospital",
    data_map="m.toml",
    policies="policies",
    control="host=/x dbname=control",
    legacy="host=/x dbname=hospital",
)


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "deep" / "state")
    made.create()
    return made


def test_every_folder_is_closed_to_others(state: State) -> None:
    state.root.chmod(0o755)
    state.create()
    folders = [state.root, *(p for p in state.root.rglob("*") if p.is_dir())]
    assert {p.stat().st_mode & 0o777 for p in folders} == {0o700}


def test_what_verifies_the_log_is_not_inside_it(state: State) -> None:
    for outside in (state.log_public_key, state.checkpoint_file):
        assert not outside.is_relative_to(state.log_dir)


def test_an_instance_is_read_back_as_it_was_saved(state: State) -> None:
    state.save_instance(INSTANCE)
    assert state.instance() == INSTANCE
    assert state.instance_file.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in state.root.iterdir() if p.is_file()] == ["instance.json"]


def test_a_folder_without_an_instance_or_with_a_damaged_one_is_told(state: State) -> None:
    with pytest.raises(Misconfigured, match="holds no Chartgate instance"):
        state.instance()
    state.instance_file.write_text('{"node": 1}')
    with pytest.raises(Misconfigured, match="is damaged"):
        state.instance()


def checkpoint(size: int, root: int = 0) -> str:
    key = VerifierKey("log.example", ED25519, bytes(32))
    return sign_checkpoint(Checkpoint(key.name, size, bytes([root]) * 32), key, lambda _: bytes(64))


def test_the_known_checkpoint_is_remembered(state: State) -> None:
    assert state.known_checkpoint() is None
    for size in (1, 1, 2):
        state.save_checkpoint(checkpoint(size))
        assert state.known_checkpoint() == checkpoint(size)


@pytest.mark.parametrize("other", [checkpoint(4), checkpoint(5, root=1)])
def test_the_evidence_of_a_longer_or_another_log_is_not_overwritten(
    state: State, other: str
) -> None:
    state.save_checkpoint(checkpoint(5))
    with pytest.raises(RolledBack, match="rolled back or replaced"):
        state.save_checkpoint(other)
    assert state.known_checkpoint() == checkpoint(5)


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "/srv/gate")
    assert default_root() == Path("/srv/gate")
    monkeypatch.delenv(ENVIRONMENT)
    monkeypatch.setenv("XDG_STATE_HOME", "/srv/state")
    assert default_root() == Path("/srv/state/chartgate/demo")
