"""A bad shard in a real index server: it is named, the others are searched, coverage lacks its range."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from shashin.kafka.producer import Producer
from shashin.model_space import ModelSpace
from shashin.objectstore.open import open_object_store
from shashin.offsets.ranges import OffsetRange
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.quantizers import Quantizers
from shashin.repository.repository import ModelRepository
from shashin.shards.format.file_entry import FileEntry, file_entry
from shashin.shards.format.manifest import ROWS_FILE, Manifest, model_file_key
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.ivf_sq4 import CODES_FILE, KIND, NAME, QUANTIZER_FILE
from shashin.shards.kinds.ivf_sq4 import ROWS_FILE as LIST_ROWS_FILE
from shashin.shards.kinds.protocol import IndexKind
from shashin.shards.kinds.quantizer import Quantizer
from shashin.shards.kinds.registry import growing_kind, index_kind
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from tests.support.embedded_listings import DIMENSIONS, MODEL, IndexClient, embedded, vector_of
from tests.support.hidden_map import HiddenMap
from tests.support.indexer_settings import indexer_settings
from tests.support.made_shards import BUCKET_START
from tests.support.running_service import RunningService
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]

GOOD, BAD = ["lamp", "chair", "mug"], ["hat", "shoe", "bowl", "fork"]
GOOD_RANGE, BAD_RANGE = OffsetRange(0, 0, 3), OffsetRange(0, 3, 7)


def centroids(lists: int, dimensions: int, seed: int) -> Quantizer:
    """Return a quantizer of a model."""
    normal = np.random.default_rng(seed).normal(size=(lists, dimensions)).astype(np.float32)
    return Quantizer(normal / np.linalg.norm(normal, axis=1, keepdims=True))


QUANTIZED = KIND.with_quantizer(centroids(4, DIMENSIONS, 1))


class Tier:
    """The hourly tier of a repository in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self._scratch = folder / "scratch"
        self.repository = ModelRepository(open_object_store(self.folder.as_uri()))

    async def seal(self, listings: list[str], from_offset: int, kind: IndexKind) -> Manifest:
        """Commit a shard with one row per listing."""
        space = ModelSpace(MODEL, DIMENSIONS)
        shard = OpenShard(0, from_offset, space, growing_kind("flat-f16"), HiddenMap())
        rows = [NewRow(Row(name, 1, 0, RowAttributes()), vector_of(name)) for name in listings]
        shard.add(rows, position=from_offset + len(rows), bucket_start=BUCKET_START)
        manifest = shard.write(
            self._scratch, tier=HOURLY, bucket_seconds=3600, reason="time", kind=kind
        )
        assert (await self.repository.commit_shard(manifest, self._scratch)).first
        return manifest

    async def point_to(self, *manifests: Manifest) -> None:
        named = tuple(sorted(PointedShard.of(manifest) for manifest in manifests))
        await self.repository.move_pointer(Pointer(MODEL, HOURLY, named), over=None)

    def path(self, key: str) -> Path:
        return self.folder / key

    def file(self, manifest: Manifest, name: str) -> Path:
        """Return where one of a shard's files is stored."""
        (entry,) = (entry for entry in manifest.files if entry.name == name)
        return self.path(manifest.object_key(entry))

    def rewrite(self, manifest: Manifest) -> None:
        """Store another manifest in place of a shard's."""
        self.path(manifest.key).write_bytes(manifest.to_json())

    async def seal_again(self, bad: Manifest) -> None:
        """Do what the errors ask for: delete the manifest, so that the range is sealed again."""
        self.path(bad.key).unlink()
        await self.seal(BAD, BAD_RANGE.from_offset, KIND)


@dataclass(frozen=True)
class Case:
    """A way to be bad."""

    spoil: Callable[[Tier, Manifest], None]
    error: str
    """What the server says, without the parts that differ between runs."""
    to_do: str
    """What it tells the reader to do."""
    kind: IndexKind = QUANTIZED
    lacks: str = ""
    """The library that is not installed where the server runs."""


def of_unknown_kind(tier: Tier, manifest: Manifest) -> None:
    tier.rewrite(replace(manifest, index_kind="ivf-sq99"))


def as_it_is(_tier: Tier, _manifest: Manifest) -> None:
    """Leave it whole: it is bad only for the reader."""


def quantizer_of_other_dimensions(tier: Tier, manifest: Manifest) -> None:
    """Store what a faulty builder might have written: the manifest fits, the index does not."""
    path = tier.folder / "other.npy"
    centroids(4, DIMENSIONS // 2, 2).write(path)
    written = file_entry(path)
    entry = FileEntry(QUANTIZER_FILE, written.size, written.sha256)
    files = tuple(entry if e.name == QUANTIZER_FILE else e for e in manifest.files)
    changed = replace(manifest, files=files)
    path.rename(tier.path(changed.object_key(entry)))
    tier.rewrite(changed)


def quantizer_of_another_model(tier: Tier, manifest: Manifest) -> None:
    path = tier.file(manifest, QUANTIZER_FILE)
    size = path.stat().st_size
    centroids(4, DIMENSIONS, 3).write(path)
    assert path.stat().st_size == size


def cut_short(name: str) -> Callable[[Tier, Manifest], None]:
    def spoil(tier: Tier, manifest: Manifest) -> None:
        path = tier.file(manifest, name)
        path.write_bytes(path.read_bytes()[:-3])

    return spoil


def flipped(name: str) -> Callable[[Tier, Manifest], None]:
    def spoil(tier: Tier, manifest: Manifest) -> None:
        path = tier.file(manifest, name)
        data = bytearray(path.read_bytes())
        data[-2] ^= 0x40
        path.write_bytes(data)

    return spoil


def missing(name: str) -> Callable[[Tier, Manifest], None]:
    def spoil(tier: Tier, manifest: Manifest) -> None:
        tier.file(manifest, name).unlink()

    return spoil


def out_of_bounds(tier: Tier, manifest: Manifest) -> None:
    """Store row numbers beyond the last row, as a faulty builder might: their hash is right."""
    (entry,) = (entry for entry in manifest.files if entry.name == LIST_ROWS_FILE)
    path = tier.path(manifest.object_key(entry))
    data = bytearray(path.read_bytes())
    data[-4:] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    spoiled = replace(file_entry(path), name=entry.name)
    changed = replace(
        manifest, files=tuple(spoiled if e.name == entry.name else e for e in manifest.files)
    )
    path.rename(tier.path(changed.object_key(spoiled)))
    tier.rewrite(changed)


CASES = {
    "unknown kind": Case(of_unknown_kind, "is of kind ivf-sq99", "upgrade the reader"),
    "library not installed": Case(
        as_it_is,
        "is of kind usearch-hnsw, and its library cannot be loaded: No module named 'usearch'",
        "rebuild the shard with another kind",
        kind=index_kind("usearch-hnsw"),
        lacks="usearch",
    ),
    "quantizer of other dimensions": Case(
        quantizer_of_other_dimensions,
        f"{QUANTIZER_FILE} is not a complete file of centroids of {DIMENSIONS} dimensions",
        "rebuild the shard",
    ),
    "quantizer of another model": Case(
        quantizer_of_another_model, "its manifest says", "restore the object"
    ),
    "codes cut short": Case(cut_short(CODES_FILE), "its manifest says", "restore the object"),
    "rows cut short": Case(cut_short(ROWS_FILE), "its manifest says", "restore the object"),
    "a flipped bit in a list's codes": Case(
        flipped(CODES_FILE), "its manifest says", "restore the object"
    ),
    "a flipped bit in a list's rows": Case(
        flipped(LIST_ROWS_FILE), "its manifest says", "restore the object"
    ),
    "rows out of bounds": Case(
        out_of_bounds, f"{LIST_ROWS_FILE} has row {2**31} of 4", "rebuild the shard"
    ),
    "codes missing": Case(missing(CODES_FILE), "is missing, though", "delete the manifest"),
}


def without_library(folder: Path, name: str) -> Path:
    """Return a folder that hides a library from processes that have it in PYTHONPATH."""
    package = folder / "hidden-libraries" / name
    package.mkdir(parents=True)
    error = f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')\n"
    (package / "__init__.py").write_text(error)
    return package.parent


@pytest.mark.parametrize("name", CASES)
async def test_a_bad_shard_is_named_and_lacks_in_coverage_until_a_good_one_is_in_its_place(
    start_service: StartService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case, tier = CASES[name], Tier(tmp_path)
    # With a quantizer of its own, which is a file of no other shard.
    own = KIND.with_quantizer(centroids(3, DIMENSIONS, 4))
    good = await tier.seal(GOOD, GOOD_RANGE.from_offset, own)
    bad = await tier.seal(BAD, BAD_RANGE.from_offset, case.kind)
    case.spoil(tier, bad)
    await tier.point_to(good, bad)
    if case.lacks:
        monkeypatch.setenv("PYTHONPATH", str(without_library(tmp_path, case.lacks)))
    server = await start_service(
        "index_server",
        model_id=MODEL,
        dimensions=DIMENSIONS,
        repository=tier.folder.as_uri(),
        work_folder=tmp_path / "server",
        poll_seconds=0.1,
    )
    async with IndexClient(server.grpc) as client:
        for listing in GOOD:
            assert await client.finds(listing)
        assert await client.covered() == [GOOD_RANGE]
        shards = (await client.describe()).shards
        assert [shard.shard_id for shard in shards] == [good.shard_id]
        (logged,) = {
            line["error"]
            for line in map(json.loads, server.log().splitlines())
            if line.get("event") == "shard cannot be served" and line["shard"] == bad.shard_id
        }
        assert case.error in logged
        assert case.to_do in logged
        assert f"1 cannot be served: {bad.shard_id}" in await server.probe("healthz")
        assert await server.metric("shashin_index_server_bad_shards") == 1
        process = server.process.pid
        await tier.seal_again(bad)

        async def served() -> bool:
            return await client.covered() == [OffsetRange(0, 0, 7)]

        await until(served, "the shard that was sealed again is served")
        for listing in (*GOOD, *BAD):
            assert await client.finds(listing)
    assert (server.process.pid, server.process.poll()) == (process, None)
    await until(lambda: server.get("healthz"), "all is well again")


async def test_a_quantizer_whose_file_is_missing_is_named_and_sealing_goes_on(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    tier = Tier(tmp_path)
    record = f"models/{MODEL}/quantizer.json"
    file = FileEntry(QUANTIZER_FILE, 384, "0" * 64)
    await Quantizers(open_object_store(tier.folder.as_uri()), MODEL).offer(file, 4)
    indexer = await start_service(
        "indexer",
        **indexer_settings(tmp_path, bucket_seconds=1, grace_seconds=0.5, sealed_index_kind=NAME),
    )
    await producer.send_all([embedded("lamp")])

    async def sealed() -> list[Manifest]:
        shards, _ = await tier.repository.shards(MODEL, HOURLY)
        return [stored.manifest for stored in shards]

    (manifest,) = await until(sealed, "the shard is sealed")
    assert (manifest.index_kind, manifest.model_files) == (NAME, ())
    problems = await indexer.probe("healthz")
    assert "the model's quantizer: shards are sealed without it" in problems
    assert f"{model_file_key(MODEL, file)} is missing, though {record} names it" in problems
    tier.path(record).unlink()
    await producer.send_all([embedded("mug")])
    await until(lambda: indexer.get("healthz"), "the next shard is sealed and all is well")
