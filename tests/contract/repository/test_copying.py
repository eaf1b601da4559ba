"""A model is copied between stores of any kind, verified, and serves the same answers from there."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from shashin.cli.app import app
from shashin.errors import ObjectStoreUnavailable, UserError
from shashin.local.ports import HOST
from shashin.objectstore.file import FileObjectStore
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore, OnlyIf, Version
from shashin.objectstore.s3 import PART_BYTES
from shashin.repository.contents import arrangement_problems, read_contents
from shashin.repository.copying import Copied, ModelCopy, only_model
from shashin.repository.horizons import Horizons
from shashin.repository.pointer import PointedShard, Pointer, pointer_key
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.kinds.usearch_hnsw import INDEX_FILE
from shashin.shards.row_filter import RowFilter
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import HOURLY
from tests.support.made_shards import (
    MODEL,
    WatchedStore,
    commit,
    listings,
    object_key,
    open_shard,
    vectors,
)
from tests.support.shashin_command import COMMAND, shashin
from tests.support.tcp_proxy import Direction, TcpProxy
from tests.support.waiting import until

SHARDS = 3
QUERIES = 4


@pytest.fixture
def source(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "source")


@pytest.fixture
async def stored(source: WatchedStore, tmp_path: Path) -> list[StoredShard]:
    """Three shards: the pointer names the first, the second is new, the third is neither."""
    repository = ModelRepository(source)
    shards = [
        await commit(
            repository,
            open_shard(listings(start, start + 5), from_offset=start),
            tmp_path / "scratch",
        )
        for start in range(0, 5 * SHARDS, 5)
    ]
    for announced in await repository.announced(MODEL):
        assert isinstance(announced.shard, StoredShard)
        if announced.shard != shards[1]:
            await repository.settle(announced)
    await point_to(repository, shards[:1])
    await repository.keep_in_history(Pointer(MODEL, HOURLY, ()))
    await Horizons(source, MODEL).keep(0, 0)
    await source.write(f"models/{MODEL}/notes.txt", b"about the model")
    return shards


async def point_to(repository: ModelRepository, shards: list[StoredShard]) -> None:
    _, over = await repository.read_pointer(MODEL, HOURLY)
    named = tuple(PointedShard.of(shard.manifest) for shard in shards)
    await repository.move_pointer(Pointer(MODEL, HOURLY, named), over=over)


async def copy(
    source: ObjectStore,
    target: ObjectStore,
    scratch: Path,
    *,
    replace: bool = False,
    everything: bool = False,
) -> Copied:
    with TemporaryDirectory(dir=scratch) as folder:
        copy = ModelCopy(source, target, MODEL, Path(folder), replace=replace)
        copied = await copy.run(everything=everything)
        assert is_empty(Path(folder))
    return copied


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


async def objects(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: (await store.read(info.key))[0] for info in await store.list_objects("")}


async def hits_of(store: ObjectStore, cache: Path) -> list[list[tuple[str, float]]]:
    """Return what the shards of the repository find for some queries."""
    repository = ModelRepository(store)
    shards, unreadable = await repository.shards(MODEL, HOURLY)
    assert not unreadable
    found = []
    for shard in shards:
        opened = SealedShard(shard.manifest, await repository.fetch(shard, cache))
        found += [
            [
                (opened.row(int(row)).listing_id, float(score))
                for row, score in zip(near.rows, near.scores, strict=True)
            ]
            for near in opened.search(vectors(QUERIES, seed=7), 5, RowFilter())
        ]
    return found


async def test_a_restored_model_serves_the_same_answers(
    source: WatchedStore, stored: list[StoredShard], store: ObjectStore, tmp_path: Path
) -> None:
    copied = await copy(source, store, tmp_path)
    assert (copied.problems, copied.shards) == ([], 2)
    assert await ModelRepository(store).history(MODEL, HOURLY) == []
    assert copied.pointers == [pointer_key(MODEL, HOURLY)]
    restored = FileObjectStore(tmp_path / "restored")
    assert (await copy(store, restored, tmp_path)).problems == []
    assert await hits_of(restored, tmp_path / "there") == await hits_of(store, tmp_path / "backup")
    of_source = await hits_of(source, tmp_path / "here")
    assert await hits_of(restored, tmp_path / "there") == of_source[: 2 * QUERIES]
    model_files = {key: data for key, data in (await objects(source)).items() if "models/" in key}
    assert model_files
    assert model_files.items() <= (await objects(restored)).items()
    assert all(of_source)
    _, contents = await read_contents(restored)
    assert contents.pointed == {(MODEL, HOURLY): {stored[0].manifest.shard_id}}
    assert arrangement_problems(contents) == []
    assert (await Horizons(restored, MODEL).keep(0, 99)).offset == 0
    # A shard that no pointer names yet is planned there as well.
    (announced,) = await ModelRepository(restored).announced(MODEL)
    assert announced.shard == stored[1]


async def test_everything_is_copied_if_asked_for(
    source: WatchedStore, stored: list[StoredShard], store: ObjectStore, tmp_path: Path
) -> None:
    assert (await copy(source, store, tmp_path, everything=True)).shards == SHARDS
    here, there = await objects(source), await objects(store)
    announced = {key for key in there if key.startswith("announced/")}
    assert {key: data for key, data in there.items() if key not in announced} == {
        key: data for key, data in here.items() if not key.startswith("announced/")
    }


async def test_a_second_copy_copies_only_what_is_missing_or_different(
    source: WatchedStore, stored: list[StoredShard], store: ObjectStore, tmp_path: Path
) -> None:
    first = await copy(source, store, tmp_path)
    assert first.copied_bytes >= first.total_bytes > 0
    source.downloads.clear()
    second = await copy(source, store, tmp_path)
    assert (second.problems, second.files, source.downloads) == ([], 0, [])
    assert second.verified_bytes == first.total_bytes
    damaged, missing = (object_key(shard, INDEX_FILE) for shard in stored[:2])
    intact, _ = await store.read(damaged)
    await store.write(damaged, intact[::-1])
    await store.delete(missing)
    third = await copy(source, store, tmp_path)
    assert (third.problems, third.files) == ([], 2)
    assert source.downloads == [damaged, missing]
    assert (await store.read(damaged))[0] == intact


@pytest.mark.parametrize("damage", ["file", "missing file", "manifest", "pointer"])
async def test_what_cannot_be_verified_is_named_and_nothing_is_served(
    source: WatchedStore,
    stored: list[StoredShard],
    tmp_path: Path,
    damage: str,
) -> None:
    target = WatchedStore(tmp_path / "target")
    key = {
        "file": object_key(stored[0], INDEX_FILE),
        "missing file": object_key(stored[0], INDEX_FILE),
        "manifest": stored[0].manifest_key,
        "pointer": pointer_key(MODEL, HOURLY),
    }[damage]
    if damage == "missing file":
        await source.delete(key)
    else:
        await source.write(key, (await source.read(key))[0][::-1])
    copied = await copy(source, target, tmp_path)
    assert len(copied.problems) == 1
    assert key in copied.problems[0]
    assert copied.pointers == []
    assert await target.list_objects("serving/") == []
    manifests = [info.key for info in await target.list_objects("indexes/")]
    assert stored[0].manifest_key not in manifests
    # What can be verified is there for the next run.
    assert (stored[1].manifest_key in manifests) == (damage != "pointer")


class Interrupted(WatchedStore):
    """A store that is unavailable from a number of uploads on."""

    uploads_left = 1

    async def upload(self, key: str, path: Path, *, only_if: OnlyIf | None = None) -> Version:
        if self.uploads_left == 0:
            raise ObjectStoreUnavailable("the store is down")
        self.uploads_left -= 1
        return await super().upload(key, path, only_if=only_if)


async def test_an_interrupted_copy_publishes_nothing_and_is_continued(
    source: WatchedStore, stored: list[StoredShard], tmp_path: Path
) -> None:
    target = Interrupted(tmp_path / "target")
    with pytest.raises(ObjectStoreUnavailable):
        await copy(source, target, tmp_path)
    kept = [info.key for info in await target.list_objects("indexes/")]
    assert len(kept) == 1
    assert await target.list_objects("serving/") == []
    target.uploads_left = 100
    source.downloads.clear()
    assert (await copy(source, target, tmp_path)).problems == []
    assert kept[0] not in source.downloads


async def test_files_come_before_their_manifest_and_pointers_last(
    source: WatchedStore, stored: list[StoredShard], tmp_path: Path
) -> None:
    target = WatchedStore(tmp_path / "target")
    await copy(source, target, tmp_path)
    assert target.writes[-1] == pointer_key(MODEL, HOURLY)
    for shard in stored[:2]:
        at = target.writes.index(shard.manifest_key)
        for entry in shard.manifest.files:
            assert target.writes.index(shard.manifest.object_key(entry)) < at


async def test_a_restore_keeps_what_differs_unless_it_is_told_to_replace_it(
    source: WatchedStore, stored: list[StoredShard], tmp_path: Path
) -> None:
    target = FileObjectStore(tmp_path / "target")
    await copy(source, target, tmp_path)
    await point_to(ModelRepository(source), stored[:2])
    refused = await copy(source, target, tmp_path)
    (problem,) = refused.problems
    assert f"the target has another {pointer_key(MODEL, HOURLY)}" in problem
    pointer, _ = await ModelRepository(target).read_pointer(MODEL, HOURLY)
    assert pointer is not None
    assert len(pointer.shards) == 1
    assert (await copy(source, target, tmp_path, replace=True)).problems == []
    pointer, _ = await ModelRepository(target).read_pointer(MODEL, HOURLY)
    assert pointer is not None
    assert len(pointer.shards) == 2
    # Served now, so it needs no plan any more.
    assert await ModelRepository(target).announced(MODEL) == []


async def test_a_model_has_to_be_named_if_it_is_not_the_only_one(
    source: WatchedStore, stored: list[StoredShard]
) -> None:
    assert await only_model(source) == MODEL
    await Horizons(source, "other-model").keep(0, 0)
    with pytest.raises(UserError, match=f"2 models .other-model, {MODEL}.: name one with --model"):
        await only_model(source)


class HoldingProxy(TcpProxy):
    """Holds back what is sent after a number of bytes, until it is let go, which cuts it."""

    def __init__(self, port: int, *, after: int) -> None:
        super().__init__(HOST, port)
        self._after = after
        self._sent = 0
        self.holds, self.released = asyncio.Event(), asyncio.Event()

    async def lets_through(self, piece: bytes, direction: Direction, carried: int) -> bool:
        self._sent += len(piece) if direction == "sent" else 0
        if direction == "received" or self._sent <= self._after:
            return True
        self.holds.set()
        await self.released.wait()
        return False


async def test_an_export_that_is_killed_in_mid_file_publishes_nothing_and_is_continued(
    source: WatchedStore,
    stored: list[StoredShard],
    s3: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = f"models/{MODEL}/checkpoint.pt"
    data = random.Random(1).randbytes(3 * PART_BYTES)
    await source.write(large, data)
    command = ("indexes", "export", s3, "--repository", source.root.as_uri(), "--json")
    server = os.environ["AWS_ENDPOINT_URL"]
    # All shards are there by then, and a part of the large file.
    proxy = HoldingProxy(urlsplit(server).port or 80, after=PART_BYTES * 3 // 2)
    listening = await asyncio.start_server(proxy.serve, HOST, 0)
    port = listening.sockets[0].getsockname()[1]
    async with opened_object_store(s3) as target:
        await target.list_objects("")  # so that it does not use the proxy
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{port}")
        exporting = await asyncio.create_subprocess_exec(
            COMMAND, *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        await until(proxy.holds.is_set, "it is in the middle of the file")
        exporting.kill()
        await exporting.wait()
        proxy.released.set()
        listening.close()
        before = await objects(target)
        assert before.keys() >= {shard.manifest_key for shard in stored[:2]}
        assert large not in before
        assert not any(key.startswith("serving/") for key in before)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        done = (await shashin(*command, state=tmp_path / "state")).document
        assert (done["problems"], done["shards"]) == ([], 2)
        assert done["files"] == 2, "only the large file and the one after it are copied"
        there = await objects(target)
        assert there[large] == data
        assert pointer_key(MODEL, HOURLY) in there


def indexes(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["indexes", *arguments], catch_exceptions=False)
    return result.exit_code, result.output


def test_the_command_exports_and_imports(
    source: WatchedStore, stored: list[StoredShard], tmp_path: Path
) -> None:
    here, backup, there = ((tmp_path / name).as_uri() for name in ("source", "backup", "restored"))
    code, printed = indexes("export", backup, "--repository", here)
    assert code == 0
    assert f"{MODEL}: 2 shards verified in both stores, " in printed
    assert "1 pointers written or up to date" in printed
    code, printed = indexes("import", backup, "--repository", there, "--json", "--all")
    assert code == 0
    document = json.loads(printed[printed.index("{") :])
    assert (document["model_id"], document["shards"], document["problems"]) == (MODEL, 2, [])
    code, printed = indexes("verify", "--repository", there)
    assert code == 0
    (tmp_path / "backup" / object_key(stored[0], INDEX_FILE)).write_bytes(b"damaged")
    code, printed = indexes("import", backup, "--repository", (tmp_path / "third").as_uri())
    assert code == 1
    assert "1 problems: pointers and horizons are as they were" in printed
    assert object_key(stored[0], INDEX_FILE) in printed


def test_a_store_is_not_copied_to_itself(tmp_path: Path) -> None:
    uri = (tmp_path / "source").as_uri()
    code, printed = indexes("export", f"{uri}/", "--repository", uri)
    assert code == 2
    assert "both source and target" in printed
