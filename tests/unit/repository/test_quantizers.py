"""The newest quantizer of a model, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shashin.errors import CorruptShard, RepositoryError
from shashin.objectstore.file import FileObjectStore
from shashin.repository.quantizers import ModelQuantizer, Quantizers
from shashin.shards.format.file_entry import FileEntry, file_entry
from shashin.shards.format.manifest import model_file_key
from tests.support.made_shards import MODEL

KEY = f"models/{MODEL}/quantizer.json"


@pytest.fixture
def store(tmp_path: Path) -> FileObjectStore:
    return FileObjectStore(tmp_path / "store")


@pytest.fixture
def quantizers(store: FileObjectStore) -> Quantizers:
    return Quantizers(store, MODEL)


async def stored(store: FileObjectStore, folder: Path, content: bytes) -> FileEntry:
    path = folder / "quantizer.npy"
    path.write_bytes(content)
    entry = file_entry(path)
    await store.write(model_file_key(MODEL, entry), content)
    return entry


async def test_a_model_without_a_quantizer_has_none(quantizers: Quantizers) -> None:
    assert await quantizers.newest() is None


async def test_only_a_finer_one_takes_the_place_of_another(
    quantizers: Quantizers, store: FileObjectStore, tmp_path: Path
) -> None:
    first, second, third = [
        await stored(store, tmp_path, content) for content in (b"1", b"2", b"3")
    ]
    await quantizers.offer(first, 64)
    await quantizers.offer(second, 64)
    assert await quantizers.newest() == ModelQuantizer(MODEL, first, 64)
    await quantizers.offer(third, 128)
    assert await quantizers.newest() == ModelQuantizer(MODEL, third, 128)


async def test_its_file_is_verified_and_kept(
    quantizers: Quantizers, store: FileObjectStore, tmp_path: Path
) -> None:
    entry = await stored(store, tmp_path, b"centroids")
    newest = ModelQuantizer(MODEL, entry, 64)
    path = await quantizers.fetch(newest, tmp_path / "work")
    assert path.read_bytes() == b"centroids"
    await store.delete(model_file_key(MODEL, entry))
    assert await quantizers.fetch(newest, tmp_path / "work") == path
    path.write_bytes(b"centroidz")
    with pytest.raises(CorruptShard, match=f"{KEY} says 9 bytes"):
        await quantizers.fetch(newest, tmp_path / "work")
    with pytest.raises(CorruptShard, match="is missing"):
        await quantizers.fetch(newest, tmp_path / "work")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "shashin.quantizer/2"},
        {"model_id": "other"},
        {"lists": 0},
        {"file": None},
        {"x": 1},
    ],
    ids=str,
)
async def test_a_record_that_cannot_be_read_is_named_and_not_overwritten(
    quantizers: Quantizers, store: FileObjectStore, tmp_path: Path, changes: dict[str, object]
) -> None:
    entry = await stored(store, tmp_path, b"1")
    document = json.loads(ModelQuantizer(MODEL, entry, 64).to_json()) | changes
    await store.write(KEY, json.dumps(document).encode())
    with pytest.raises(RepositoryError, match=KEY):
        await quantizers.newest()
    with pytest.raises(RepositoryError, match=KEY):
        await quantizers.offer(entry, 4_096)
    assert json.loads((await store.read(KEY))[0]) == document
