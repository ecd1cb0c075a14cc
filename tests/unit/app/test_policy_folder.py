"""A policy folder can come from anybody: what lies outside it is not read, and nothing is waited for."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chartgate.adapters.policy_files import read_bundle, read_map_bundle
from chartgate.errors import Misconfigured


@pytest.fixture
def folder(tmp_path: Path, project_root: Path) -> Path:
    return shutil.copytree(project_root / "policies", tmp_path / "rules")


def leads_out(path: Path) -> None:
    secret = path.parents[1] / "secret"
    secret.write_text("a private key")
    path.symlink_to(secret)


def leads_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def leads_to_itself(path: Path) -> None:
    path.symlink_to(path)


def is_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 << 30)


@pytest.mark.parametrize(
    "make",
    [leads_out, leads_to_a_device, leads_to_itself, os.mkfifo, is_huge, Path.mkdir],
    ids=["out of it", "a device", "a loop", "a pipe", "2 GiB", "a folder"],
)
def test_what_is_no_file_of_the_folder_is_refused_at_once(
    folder: Path, make: Callable[[Path], None]
) -> None:
    make(folder / "x.cedar")
    with pytest.raises(Misconfigured, match=r"x\.cedar") as refused:
        read_bundle(folder)
    assert "private key" not in str(refused.value)


def test_links_within_the_folder_are_followed(folder: Path) -> None:
    before = read_bundle(folder).hash
    (folder / "roles.toml").rename(folder / "kept")
    (folder / "roles.toml").symlink_to("kept")
    assert read_bundle(folder).hash == before


@pytest.mark.parametrize("named", ["../secret", "{}/secret", "a\\u0000b"])
def test_a_data_map_names_no_code_set_outside_its_folder(tmp_path: Path, named: str) -> None:
    (tmp_path / "secret").write_text("a private key")
    (tmp_path / "maps").mkdir()
    file = tmp_path / "maps" / "m.toml"
    file.write_text(f'source = "m"\n[code_sets]\nx = "{named.format(tmp_path)}"\n')
    with pytest.raises(Misconfigured) as refused:
        read_map_bundle(file)
    assert "private key" not in str(refused.value)
