"""The file of API keys: atomic, readable by its owner, and edited by one command at a time."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shashin.access.api_key import MAX_KEYS, KeyDocument, new_key
from shashin.access.key_file import MAX_FILE_BYTES, KeyFile, read_keys
from shashin.errors import ApiKeyNotFound, UserError

NOW = datetime(2026, 11, 29, 10, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "secrets" / "keys.json")


def test_added_keys_are_there_and_only_the_owner_can_read_them(file: KeyFile) -> None:
    before = os.umask(0)
    try:
        first, second = (new_key(name, created=NOW)[1] for name in ("app", "web"))
        file.add(first)
        file.add(second)
    finally:
        os.umask(before)
    assert file.read().keys == (first, second)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [entry.name for entry in file.path.parent.iterdir()] == ["keys.json"]


def test_a_revoked_key_stays_in_the_file_until_it_is_pruned(file: KeyFile) -> None:
    kept, revoked = (new_key(name, created=NOW)[1] for name in ("app", "web"))
    expired = new_key("old", created=NOW, expires=NOW + timedelta(days=1))[1]
    for key in (kept, revoked, expired):
        file.add(key)
    assert file.revoke(revoked.id, NOW).revoked == NOW
    assert file.revoke(revoked.id, NOW + timedelta(days=1)).revoked == NOW
    assert [key.id for key in file.read().keys] == [kept.id, revoked.id, expired.id]
    removed = file.prune(NOW + timedelta(days=2))
    assert [key.id for key in removed] == [revoked.id, expired.id]
    assert file.read().keys == (kept,)
    assert file.prune(NOW) == []


def test_a_key_that_is_not_there_cannot_be_revoked(file: KeyFile) -> None:
    file.add(new_key("app", created=NOW)[1])
    before = file.path.read_bytes()
    with pytest.raises(ApiKeyNotFound, match="shashin keys ls"):
        file.revoke("0000000000", NOW)
    assert file.path.read_bytes() == before


def test_commands_at_the_same_time_lose_no_key(file: KeyFile) -> None:
    made = [new_key(f"app-{number}", created=NOW)[1] for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: KeyFile(file.path).add(key), made))
    assert {key.id for key in file.read().keys} == {key.id for key in made}


def test_a_full_file_takes_no_more(file: KeyFile) -> None:
    file.path.parent.mkdir()
    full = KeyDocument(keys=tuple(new_key("app", created=NOW)[1] for _ in range(MAX_KEYS)))
    file.path.write_text(full.model_dump_json())
    with pytest.raises(UserError, match="shashin keys prune"):
        file.add(new_key("app", created=NOW)[1])
    assert file.read() == full


def test_a_file_of_something_else_is_not_overwritten(file: KeyFile) -> None:
    file.path.parent.mkdir()
    file.path.write_text("precious")
    with pytest.raises(UserError, match="not a file of API keys"):
        file.add(new_key("app", created=NOW)[1])
    assert file.path.read_text() == "precious"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json cannot be read: no such file"):
        read_keys(tmp_path / "absent.json")
    with pytest.raises(UserError, match="is a directory"):
        read_keys(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="not a regular file"):
        read_keys(pipe)
    large = tmp_path / "large"
    large.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(UserError, match="expected a file of API keys"):
        read_keys(large)
