"""``shashin cache``: counts, and prunes only with --yes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shashin.cli.app import app
from shashin.originals import Original, OriginalsCache, SourceVersion


@pytest.fixture
def cache(tmp_path: Path) -> OriginalsCache:
    made = OriginalsCache(tmp_path / "cache", max_bytes=10**6, keep_seconds=10**6)
    for name in ("old", "new"):
        data = name.encode() * 1000
        made.store(name, Original(data, hashlib.sha256(data).digest()), SourceVersion())
    day_ago = time.time() - 86_400
    for kind in ("content", "uris"):
        for path in (made.folder / kind).rglob("*"):
            if path.is_file() and b"old" in path.read_bytes():
                os.utime(path, (day_ago, day_ago))
    return made


def shashin(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["cache", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_stats_count_what_is_in_the_cache(cache: OriginalsCache) -> None:
    found = json.loads(shashin("stats", "--folder", cache.folder, "--json"))
    assert (found["originals"], found["entries"], found["original_bytes"]) == (2, 2, 6000)
    assert found["bytes"] == found["original_bytes"] + found["entry_bytes"]
    assert found["oldest_use"] < time.time() - 80_000
    assert "originals" in shashin("stats", "--folder", cache.folder)


def test_prune_changes_nothing_without_yes(cache: OriginalsCache) -> None:
    arguments = ("prune", "--folder", cache.folder, "--seconds", 3600, "--json")
    dry = json.loads(shashin(*arguments))
    assert (dry["dry_run"], dry["expired"], dry["surplus"]) == (True, 1, 0)
    assert cache.cached("old") is not None
    assert "nothing was changed: add --yes" in shashin("prune", "--folder", cache.folder)


def test_prune_removes_by_age_and_by_size(cache: OriginalsCache) -> None:
    arguments = ("prune", "--folder", cache.folder, "--yes", "--json")
    by_age = json.loads(shashin(*arguments, "--seconds", 3600))
    assert (by_age["dry_run"], by_age["expired"]) == (False, 1)
    assert cache.cached("old") is None
    assert cache.cached("new") is not None
    by_size = json.loads(shashin(*arguments, "--max-bytes", 0))
    assert (by_size["surplus"], by_size["left_bytes"]) == (1, 0)
    assert cache.cached("new") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stats",), "use --folder, or set SHASHIN_CACHE_FOLDER"),
        (("stats", "--folder", "/no/such/folder"), "is not a folder: expected that of a cache"),
        (("prune", "--yes"), "use --folder"),
    ],
)
def test_without_a_cache_the_option_is_named(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ["cache", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
