"""Published models on every object store: never overwritten, and verified before they are used."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from shashin.errors import (
    CorruptModel,
    DifferentContent,
    ModelNotPublished,
    RepositoryError,
    UnknownFormat,
    UserError,
)
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.published_models import (
    PublishedModel,
    PublishedModels,
    checkpoint_key,
    published_key,
)
from tests.contract.conftest import OpenStore

MODEL, DIMENSIONS = "shop:2", 64
WEIGHTS, OTHERS = b"weights" * 1000, b"WEIGHTS" * 1000
CHECKPOINT, MANIFEST = checkpoint_key(MODEL), published_key(MODEL)
PUBLISHERS = 4


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return checkpoint(tmp_path, WEIGHTS)


@pytest.fixture
def others(tmp_path: Path) -> Path:
    return checkpoint(tmp_path, OTHERS)


def checkpoint(folder: Path, content: bytes) -> Path:
    path = folder / f"{content[:7].decode()}.pt"
    path.write_bytes(content)
    return path


async def objects(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: (await store.read(info.key))[0] for info in await store.list_objects("")}


async def test_a_published_model_is_fetched_as_it_was(
    open_store: OpenStore, weights: Path, tmp_path: Path
) -> None:
    published = await PublishedModels(open_store()).publish(weights, MODEL, DIMENSIONS)
    reader = PublishedModels(open_store())
    assert await reader.read(MODEL) == published
    model, path = await reader.fetch(MODEL, tmp_path / "models")
    assert (model, path.read_bytes()) == (published, WEIGHTS)
    assert (model.model_id, model.dimensions, model.file.size) == (MODEL, DIMENSIONS, len(WEIGHTS))


async def test_a_checkpoint_comes_before_the_manifest_that_vouches_for_it(
    store: ObjectStore, weights: Path
) -> None:
    await PublishedModels(store).publish(weights, MODEL, DIMENSIONS)
    listed = [info.key for info in await store.list_objects(f"models/{MODEL}/")]
    assert listed == [CHECKPOINT, MANIFEST], "the order in which a copy copies them"


async def test_publishing_again_writes_nothing(store: ObjectStore, weights: Path) -> None:
    models = PublishedModels(store)
    first = await models.publish(weights, MODEL, DIMENSIONS)
    before = await store.list_objects("")
    assert await models.publish(weights, MODEL, DIMENSIONS) == first
    assert await store.list_objects("") == before


async def test_a_published_model_is_never_overwritten(
    store: ObjectStore, weights: Path, others: Path
) -> None:
    models = PublishedModels(store)
    await models.publish(weights, MODEL, DIMENSIONS)
    before = await store.list_objects("")
    for path, dimensions in ((others, DIMENSIONS), (weights, DIMENSIONS + 1)):
        with pytest.raises(DifferentContent, match=r"model\.json is of another checkpoint"):
            await models.publish(path, MODEL, dimensions)
    assert await store.list_objects("") == before


async def test_what_an_interrupted_publisher_left_is_completed_by_its_own_checkpoint_alone(
    store: ObjectStore, weights: Path, others: Path
) -> None:
    await store.write(CHECKPOINT, WEIGHTS)
    models = PublishedModels(store)
    with pytest.raises(DifferentContent, match=r"checkpoint\.pt is of another checkpoint"):
        await models.publish(others, MODEL, DIMENSIONS)
    assert await objects(store) == {CHECKPOINT: WEIGHTS}
    published = await models.publish(weights, MODEL, DIMENSIONS)
    assert await objects(store) == {CHECKPOINT: WEIGHTS, MANIFEST: published.to_json()}


async def test_of_publishers_of_different_checkpoints_one_wins(
    open_store: OpenStore, weights: Path, others: Path, tmp_path: Path
) -> None:
    results = await asyncio.gather(
        *(
            PublishedModels(open_store()).publish(path, MODEL, DIMENSIONS)
            for path in (weights, others) * PUBLISHERS
        ),
        return_exceptions=True,
    )
    won = {result for result in results if isinstance(result, PublishedModel)}
    assert len(won) == 1
    assert all(isinstance(r, (PublishedModel, DifferentContent)) for r in results), results
    model, path = await PublishedModels(open_store()).fetch(MODEL, tmp_path / "models")
    assert {model} == won
    assert path.read_bytes() in {WEIGHTS, OTHERS}


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (None, f"{CHECKPOINT} is missing, though {MANIFEST} names it"),
        (WEIGHTS[:-1], "is cut short: it has 6999 of 7000 bytes"),
        (WEIGHTS + b"s", "has 7001 bytes, expected 7000"),
        (OTHERS, "has SHA-256"),
    ],
)
async def test_a_damaged_checkpoint_is_not_used_until_it_is_published_again(
    store: ObjectStore, weights: Path, tmp_path: Path, damage: bytes | None, problem: str
) -> None:
    models = PublishedModels(store)
    published = await models.publish(weights, MODEL, DIMENSIONS)
    await store.delete(CHECKPOINT)
    if damage is not None:
        await store.write(CHECKPOINT, damage)
    with pytest.raises(CorruptModel) as refused:
        await models.fetch(MODEL, tmp_path / "models")
    assert problem in refused.value.message
    assert "publish the same checkpoint again" in refused.value.message
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
    assert await models.publish(weights, MODEL, DIMENSIONS) == published
    _, path = await models.fetch(MODEL, tmp_path / "models")
    assert path.read_bytes() == WEIGHTS


async def test_a_verified_checkpoint_is_downloaded_once(
    store: ObjectStore, weights: Path, tmp_path: Path
) -> None:
    models = PublishedModels(store)
    await models.publish(weights, MODEL, DIMENSIONS)
    _, path = await models.fetch(MODEL, tmp_path / "models")
    await store.delete(CHECKPOINT)
    assert (await models.fetch(MODEL, tmp_path / "models"))[1] == path


async def test_a_damaged_file_on_this_machine_is_downloaded_again(
    store: ObjectStore, weights: Path, tmp_path: Path
) -> None:
    models = PublishedModels(store)
    await models.publish(weights, MODEL, DIMENSIONS)
    _, path = await models.fetch(MODEL, tmp_path / "models")
    path.write_bytes(OTHERS)
    await models.fetch(MODEL, tmp_path / "models")
    assert path.read_bytes() == WEIGHTS


async def test_a_model_that_was_not_published_is_named(store: ObjectStore, tmp_path: Path) -> None:
    await store.write(CHECKPOINT, WEIGHTS)
    models = PublishedModels(store)
    with pytest.raises(ModelNotPublished, match=f"there is no {MANIFEST}"):
        await models.fetch(MODEL, tmp_path)
    with pytest.raises(UserError, match="cannot be used"):
        await models.fetch("../secret", tmp_path)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"format": "shashin.model/2"}, UnknownFormat),
        ({"model_id": "another"}, CorruptModel),
        ({"dimensions": 0}, CorruptModel),
        ({"file": {"name": "../x", "size": 1, "sha256": "0" * 64}}, CorruptModel),
        ({"file": {"name": "weights.pt", "size": 1, "sha256": "0" * 64}}, CorruptModel),
        ({"more": 1}, CorruptModel),
    ],
)
async def test_a_manifest_that_cannot_be_read_is_neither_used_nor_overwritten(
    store: ObjectStore,
    weights: Path,
    tmp_path: Path,
    changes: dict[str, object],
    error: type[RepositoryError],
) -> None:
    models = PublishedModels(store)
    published = await models.publish(weights, MODEL, DIMENSIONS)
    document = json.dumps({**json.loads(published.to_json()), **changes}).encode()
    await store.write(MANIFEST, document)
    with pytest.raises(error, match=r"model\.json"):
        await models.fetch(MODEL, tmp_path)
    with pytest.raises(error, match=r"model\.json"):
        await models.publish(weights, MODEL, DIMENSIONS)
    assert (await store.read(MANIFEST))[0] == document
