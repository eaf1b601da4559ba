from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import shashin.cli.snapshots as snapshots_command
from shashin.cli.app import app
from shashin.model_space import ModelSpace
from shashin.objectstore.file import FileObjectStore
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.registry import growing_kind
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from tests.support.hidden_log import MemoryLog
from tests.support.hidden_map import HiddenMap

DIMENSIONS = 8


def seal(
    repository: ModelRepository, start: int, end: int, scratch: Path, bucket_start: int = 1000
) -> str:
    """Build and commit a real shard of one row per offset; returns its id."""
    shard = OpenShard(
        0, start, ModelSpace("demo-v1", DIMENSIONS), growing_kind("usearch-hnsw"), HiddenMap()
    )
    vectors = np.random.default_rng(start).normal(size=(end - start, DIMENSIONS))
    attributes = RowAttributes("shoes", "ACME", 100, "JPY", 0)
    rows = [
        NewRow(Row(f"listing-{start + n}", 1, 0, attributes), v.astype(np.float32))
        for n, v in enumerate(vectors)
    ]
    shard.add(rows, position=end, bucket_start=bucket_start)
    folder = scratch / shard.shard_id
    manifest = shard.write(folder, tier=HOURLY, bucket_seconds=20, reason="time")
    asyncio.run(repository.commit_shard(manifest, folder))
    return manifest.shard_id


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The state's repository with two shards, of which the pointer names the first."""
    return repository_with_two_shards(tmp_path, bucket_start=1000)


def repository_with_two_shards(folder: Path, bucket_start: int) -> Path:
    root = folder / "repository"
    models = ModelRepository(FileObjectStore(root))
    first = seal(models, 0, 10, folder / "scratch", bucket_start)
    seal(models, 10, 30, folder / "scratch", bucket_start)
    key = f"indexes/demo-v1/hourly/{bucket_start}/{first}/manifest.json"
    pointer = Pointer("demo-v1", HOURLY, (PointedShard(first, key),))
    asyncio.run(models.move_pointer(pointer, over=None))
    return root


def indexes(command: str, root: Path, *args: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app, ["indexes", command, *args, "--repository", root.as_uri()], catch_exceptions=False
    )
    return result.exit_code, result.stdout


def test_shards_are_listed_with_what_is_served(repository: Path) -> None:
    code, printed = indexes("ls", repository, "--json")
    assert code == 0
    assert [(s["rows"], s["served"]) for s in json.loads(printed)] == [(10, True), (20, False)]
    code, printed = indexes("ls", repository)
    assert "2 shards, 30 rows" in printed


def test_a_shard_is_found_by_a_part_of_its_id(repository: Path) -> None:
    code, printed = indexes("inspect", repository, "000000000010-")
    assert code == 0
    assert "20 of 20 listings" in printed
    code, _ = indexes("inspect", repository, "p0000")
    assert code == 2


def test_an_intact_repository_verifies(repository: Path) -> None:
    assert indexes("verify", repository) == (0, "2 shards verified: no problems\n")


@pytest.mark.parametrize("name", ["index.*.usearch", "rows.*.arrow"])
def test_one_changed_byte_is_found(repository: Path, name: str) -> None:
    path = next(repository.rglob(name))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    code, printed = indexes("verify", repository, "--json")
    assert code == 1
    assert path.name in json.loads(printed)["problems"][0]


def test_objects_that_no_manifest_names_are_reported_and_are_no_problem(repository: Path) -> None:
    folder = next(repository.rglob("manifest.json")).parent
    (folder / "index.0123456789abcdef.usearch").write_bytes(b"of a replica that came second")
    key = f"{folder.relative_to(repository)}/index.0123456789abcdef.usearch"
    code, printed = indexes("verify", repository, "--json")
    assert code == 0
    assert json.loads(printed) == {
        "shards": 2,
        "problems": [],
        "overlaps": [],
        "unreferenced": [key],
    }
    for command in ("verify", "ls"):
        code, printed = indexes(command, repository)
        assert code == 0
        assert printed.replace("\n", "").count(key) == 1


@pytest.mark.parametrize("damage", ["shard_id", "files"])
def test_verifying_a_hostile_manifest_names_it_and_touches_no_other_folder(
    repository: Path, tmp_path: Path, damage: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    path = next(repository.rglob("manifest.json"))
    document = json.loads(path.read_bytes())
    if damage == "shard_id":
        document["shard_id"] = str(home)
    else:
        document["files"][0]["name"] = str(home / "thesis.txt")
    path.write_text(json.dumps(document))
    code, printed = indexes("verify", repository, "--json")
    assert code == 1
    assert str(path.relative_to(repository)) in json.loads(printed)["problems"][0]
    assert [entry.read_text() for entry in home.iterdir()] == ["years of work"]


def test_verifying_leaves_nothing_behind(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    next(repository.rglob("rows.*.arrow")).write_bytes(b"damaged")
    assert indexes("verify", repository)[0] == 1
    assert list(temporary.iterdir()) == []


def test_a_missing_file_a_broken_manifest_and_a_gap_are_found(repository: Path) -> None:
    next(repository.rglob("index.*.usearch")).unlink()
    code, printed = indexes("verify", repository)
    assert code == 1
    assert "is missing" in printed
    for path in repository.rglob("manifest.json"):
        path.write_text("{")
    code, printed = indexes("verify", repository)
    assert code == 1
    assert "is not a manifest" in printed
    assert "which does not exist" in printed


def test_shards_that_overlap_are_named_and_a_gap_is_a_problem(
    repository: Path, tmp_path: Path
) -> None:
    models = ModelRepository(FileObjectStore(repository))
    seal(models, 25, 40, tmp_path / "scratch")
    code, printed = indexes("verify", repository)
    assert code == 0
    assert "contain the same offsets" in printed
    seal(models, 50, 60, tmp_path / "scratch")
    code, printed = indexes("verify", repository)
    assert code == 1
    assert "no shard contains offsets 0:[40, 50)" in printed


def test_a_damaged_snapshot_of_hidden_rows_is_a_problem_and_a_whole_one_is_not(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    monkeypatch.setattr(snapshots_command, "LogReader", lambda *_, **__: log.opened())
    assert indexes("snapshot", repository, "--kafka", "nowhere:1")[0] == 0
    code, printed = indexes("verify", repository, "--json")
    assert code == 0
    assert json.loads(printed)["unreferenced"] == [], "snapshots are named by no manifest"
    path = next(repository.rglob("hidden-*.roaring"))
    path.write_bytes(path.read_bytes()[:-1])
    code, printed = indexes("verify", repository, "--json")
    assert code == 1
    (problem,) = json.loads(printed)["problems"]
    assert path.name in problem


def test_snapshots_of_served_shards_are_renewed_and_what_is_lost_is_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    monkeypatch.setattr(snapshots_command, "LogReader", lambda *_, **__: log.opened())
    log.append("listing-3", 2)

    def snapshot(*args: str) -> tuple[int, Any]:
        code, printed = indexes("snapshot", repository, "--kafka", "nowhere:1", "--json", *args)
        return code, json.loads(printed)

    code, renewed = snapshot()
    assert code == 0
    assert list(renewed["hidden_rows"].values()) == [1], "of the one that is served"
    assert snapshot()[1]["unchanged"] == list(renewed["hidden_rows"])
    log.append("listing-4", 2)
    log.append("listing-5", 2)
    log.delete_before(0, 2)
    code, refused = snapshot()
    assert code == 1
    (message,) = refused["refused"].values()
    assert "hidden rows end at offset 1 of listings.hidden[0], but the log begins at 2" in message
    code, forced = snapshot("--on-lost-records", "continue")
    assert (code, list(forced["hidden_rows"].values())) == (0, [2])
    assert indexes("snapshot", repository, "--on-lost-records", "guess")[0] == 2


def test_planning_of_builds_renews_old_snapshots_of_served_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a day that is not over, so that no build is due.
    repository = repository_with_two_shards(tmp_path, bucket_start=int(time.time()) // 20 * 20)
    log = MemoryLog()
    monkeypatch.setattr(snapshots_command, "LogReader", lambda *_, **__: log.opened())
    log.append("listing-3", 2)

    def plan(*args: str) -> tuple[int, str]:
        where = ("--repository", repository.as_uri(), "--state", str(tmp_path / "state"))
        result = CliRunner().invoke(app, ["builds", "plan", *args, *where])
        return result.exit_code, result.output

    old = "snapshots of hidden rows older than 7 days: 1; --run renews them"
    code, printed = plan()
    assert (code, old in printed) == (0, True), printed
    code, printed = plan("--run")
    assert code == 2, "it is not known where Kafka is"
    code, printed = plan("--run", "--kafka", "nowhere:1")
    assert (code, "1 snapshots written with 1 hidden rows" in printed) == (0, True)
    assert old not in plan()[1]
    log.append("listing-4", 2)
    assert "snapshots written" not in plan("--run", "--kafka", "nowhere:1")[1], "they are not old"
    log.append("listing-5", 2)
    log.delete_before(0, 2)
    code, printed = plan("--run", "--kafka", "nowhere:1", "--snapshot-days", "0")
    assert (code, "the log begins at 2" in printed) == (1, True)


def test_a_reindexed_shard_is_not_rolled_back_to_shards_of_another_model(
    repository: Path, tmp_path: Path
) -> None:
    store = FileObjectStore(repository)
    models = ModelRepository(store)
    (stored, *_), _ = asyncio.run(models.shards("demo-v1", HOURLY))
    of_other = replace(
        stored.manifest, parents=("demo-v1.5.hourly.p0000.000000000000-000000000010",)
    )
    asyncio.run(store.write(of_other.key, of_other.to_json()))
    arguments = ["indexes", "rollback", of_other.shard_id, "--repository", repository.as_uri()]
    result = CliRunner().invoke(app, [*arguments, "--yes"])
    assert result.exit_code == 2
    assert "was re-indexed from shards of another model" in " ".join(result.stderr.split())
    assert not list(repository.rglob("rejected/*"))
