"""The active model: changed under a precondition, and never overwritten when it cannot be read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shashin.errors import CorruptShard, PreconditionFailed, UnknownFormat
from shashin.model_space import ModelSpace
from shashin.repository.active_model import KEY, ActiveModel, ActiveModels
from shashin.repository.known_shards import known_models
from tests.support.made_shards import WatchedStore

GOLDEN = Path(__file__).parent / "golden" / "active-model-v1.json"
A, B = ModelSpace("model-a", 128), ModelSpace("model-b", 64)


def test_its_stored_form_does_not_change() -> None:
    active = ActiveModel("model-b", 64, "model-a", 1_700_000_000.5)
    assert active.to_json() == GOLDEN.read_bytes()
    assert ActiveModel.from_json(GOLDEN.read_bytes()) == active


async def test_a_model_is_activated_and_activated_back(tmp_path: Path) -> None:
    models = ActiveModels(WatchedStore(tmp_path))
    assert await models.read() is None
    assert (await models.activate_first(A, at=1.0)).space == A
    assert (await models.activate_first(B, at=2.0)).space == A, "one is active already"
    active = await models.activate(B, at=3.0)
    assert active == ActiveModel("model-b", 64, "model-a", 3.0)
    assert await models.activate(B, at=4.0) == active, "it is active already"
    assert await models.activate(A, at=5.0) == ActiveModel("model-a", 128, "model-b", 5.0)


async def test_of_two_who_activate_at_once_one_is_told(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path)
    await ActiveModels(store).activate_first(A, at=1.0)
    spaces = [ModelSpace(f"model-{n}", 8) for n in range(5)]
    found = await asyncio.gather(
        *(ActiveModels(store).activate(space, at=2.0) for space in spaces), return_exceptions=True
    )
    active = await ActiveModels(store).read()
    assert active in found
    refused = [one for one in found if one is not None and not isinstance(one, ActiveModel)]
    assert all(isinstance(one, PreconditionFailed) for one in refused)


async def test_it_is_read_again_only_once_it_has_changed(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path)
    models = ActiveModels(store)
    await models.activate_first(A, at=1.0)
    before = len(store.reads)
    for _ in range(3):
        await models.read()
    assert len(store.reads) <= before + 1
    await ActiveModels(store).activate(B, at=2.0)
    found = await models.read()
    assert found is not None
    assert found.space == B


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"format": "shashin.active-model/9"}', UnknownFormat),
        (b'{"format": "shashin.active-model/1", "model": "m"}', CorruptShard),
        (b'{"format": "shashin.active-model/1", "model": "../m", "dimensions": 8}', CorruptShard),
        (b"[]", CorruptShard),
    ],
)
async def test_an_unreadable_one_is_named_and_not_overwritten(
    tmp_path: Path, data: bytes, error: type[Exception]
) -> None:
    store = WatchedStore(tmp_path)
    await store.write(KEY, data)
    for change in (ActiveModels(store).activate, ActiveModels(store).activate_first):
        with pytest.raises(error, match=KEY):
            await change(A, at=1.0)
    assert (await store.read(KEY))[0] == data


async def test_it_is_not_taken_for_a_model(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path)
    await ActiveModels(store).activate_first(A, at=1.0)
    assert await known_models(store) == []
