"""Horizons: stored once, never moved, and never overwritten when they cannot be read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from shashin.errors import CorruptShard, UnknownFormat
from shashin.objectstore.file import FileObjectStore
from shashin.repository.contents import read_contents
from shashin.repository.horizons import FORMAT, Horizon, Horizons
from tests.support.made_shards import MODEL, WatchedStore

GOLDEN = Path(__file__).parent / "golden"


async def test_the_first_to_open_a_partition_stores_its_horizon(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path)
    opened = await asyncio.gather(*(Horizons(store, MODEL).keep(3, first) for first in (7, 9, 8)))
    assert len(set(opened)) == 1
    assert opened[0].offset in {7, 8, 9}
    assert await Horizons(store, MODEL).keep(3, 100) == opened[0]
    assert (await Horizons(store, MODEL).keep(4, 100)).offset == 100
    assert (await Horizons(store, "other-model").keep(3, 50)).offset == 50


async def test_a_person_can_raise_it(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path)
    await Horizons(store, MODEL).keep(0, 0)
    await store.write(Horizon(MODEL, 0, 300).key, Horizon(MODEL, 0, 300).to_json())
    assert (await Horizons(store, MODEL).keep(0, 0)).offset == 300


async def test_where_a_second_model_began_to_read_is_decided_once_and_stays(tmp_path: Path) -> None:
    horizons = Horizons(WatchedStore(tmp_path), MODEL)
    assert (await horizons.keep(0, 10, 90)).reads_from == 90
    assert (await horizons.keep(0, 0, 95)) == Horizon(MODEL, 0, 10, live_from=90)
    await horizons.raise_to({0: 40})
    raised = await horizons.keep(0, 0)
    assert (raised.offset, raised.live_from, raised.reads_from) == (40, 90, 90)
    await horizons.raise_to({0: 100})
    assert (await horizons.keep(0, 0)).reads_from == 100


async def test_horizons_of_every_format_are_read(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path)
    for partition, golden in enumerate(sorted(GOLDEN.glob("horizon-v*.json"))):
        await store.write(Horizon(MODEL, partition, 0).key, golden.read_bytes())
    first, second, third = await Horizons(store, MODEL).all()
    assert first == Horizon(MODEL, 0, 1200)
    assert second == Horizon(MODEL, 1, 1200, 1_700_000_000.5)
    assert third == Horizon(MODEL, 2, 1200, 1_700_000_000.5, 3400)
    assert third.to_json() == (GOLDEN / "horizon-v3.json").read_bytes()


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        ({"format": "shashin.horizon/9"}, UnknownFormat, "this version reads"),
        ({"format": FORMAT, "offset": 1}, CorruptShard, "is not a horizon"),
        ({"format": FORMAT, "model_id": MODEL, "partition": 1, "offset": 5}, CorruptShard, "parti"),
        ({"format": FORMAT, "model_id": MODEL, "partition": 0, "offset": -5}, CorruptShard, "-5"),
        (
            {"format": FORMAT, "model_id": MODEL, "partition": 0, "offset": 5, "live_from": -1},
            CorruptShard,
            "-1",
        ),
        ([], CorruptShard, "is not a horizon"),
    ],
)
async def test_an_unreadable_one_is_named_and_not_overwritten(
    tmp_path: Path, document: object, error: type[Exception], message: str
) -> None:
    store = WatchedStore(tmp_path)
    key = f"serving/{MODEL}/horizon/0000.json"
    await store.write(key, json.dumps(document).encode())
    with pytest.raises(error, match=message) as raised:
        await Horizons(store, MODEL).keep(0, 4)
    assert key in str(raised.value)
    assert json.loads((await store.read(key))[0]) == document


async def test_horizons_are_not_taken_for_pointers(tmp_path: Path) -> None:
    await Horizons(WatchedStore(tmp_path), MODEL).keep(0, 0)
    _, contents = await read_contents(FileObjectStore(tmp_path))
    assert not contents.unreadable
    assert not contents.pointed
