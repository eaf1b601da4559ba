"""``shashin keys`` in one process, with files of its own."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from shashin.access.api_key import is_hash_of
from shashin.access.key_file import read_keys
from shashin.cli.app import app


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def keys(*arguments: object, file: Path) -> Result:
    return CliRunner().invoke(app, ["keys", *map(str, arguments), "--file", str(file)])


def test_a_key_is_printed_once_and_only_its_hash_is_stored(file: Path) -> None:
    added = keys("add", "app", "--per-second", "20", "--expires-in-days", "30", file=file)
    assert added.exit_code == 0
    key = added.stdout.strip()
    (stored,) = read_keys(file).keys
    assert is_hash_of(stored, key)
    assert (stored.name, stored.per_second) == ("app", 20)
    assert stored.expires is not None
    assert (stored.expires - stored.created).days == 30
    assert added.output.count(key) == 1
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_list_has_neither_keys_nor_whole_hashes(file: Path) -> None:
    key = keys("add", "app", file=file).stdout.strip()
    (stored,) = read_keys(file).keys
    for arguments in (("ls",), ("ls", "--json")):
        listed = keys(*arguments, file=file)
        assert listed.exit_code == 0
        assert stored.id in listed.output
        for secret in (key, key.rpartition("_")[2], stored.sha256):
            assert secret not in listed.output
    (document,) = json.loads(keys("ls", "--json", file=file).stdout)
    assert (document["name"], document["state"]) == ("app", "valid")


def test_a_revoked_key_is_shown_as_such_and_can_be_pruned(file: Path) -> None:
    for name in ("app", "web"):
        keys("add", name, file=file)
    first, second = read_keys(file).keys
    revoked = keys("revoke", first.id, file=file)
    assert revoked.exit_code == 0
    assert "revoked" in revoked.output
    states = {one["id"]: one["state"] for one in json.loads(keys("ls", "--json", file=file).stdout)}
    assert states[first.id].startswith("was revoked")
    assert states[second.id] == "valid"
    assert keys("prune", file=file).exit_code == 0
    assert read_keys(file).keys == (second,)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("add", "a b"), "name"),
        (("add", "app", "--burst", "3"), "burst is given without per_second"),
        (("revoke", "0000000000"), "cannot be read"),
        (("ls",), "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    file: Path, arguments: tuple[str, ...], problem: str
) -> None:
    refused = keys(*arguments, file=file)
    assert refused.exit_code == 2
    assert problem in " ".join(refused.output.split())
    assert not file.exists()
