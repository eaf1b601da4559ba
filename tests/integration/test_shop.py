"""The shop of the compose stack, as a process: what it sends, also when it is killed in between."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from PIL import Image

from shashin.client.listing_events import LISTED, SOLD
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.v1 import events_pb2
from shashin.workload.shop import shop_event
from shashin.workload.shopkeeper import POSITION_KEY
from tests.support.running_service import RunningService
from tests.support.topic_records import records_of
from tests.support.waiting import until

STOCK = 130
"""Events of the shop; sales begin within them."""
KINDS = {"listed": LISTED, "sold": SOLD}

StartShop = Callable[..., Awaitable[RunningService]]


@pytest.fixture
async def start_shop(kafka: str, tmp_path: Path) -> AsyncIterator[StartShop]:
    async with AsyncExitStack() as stack:

        async def start(**settings: object) -> RunningService:
            photos = (tmp_path / "photos").as_uri()
            values = {"shop_photos": photos, "shop_stock": STOCK, "shop_photos_each": 1, **settings}
            module = "shashin.workload.shopkeeper"
            shop = RunningService("shop", kafka, values, log=tmp_path / "logs", module=module)
            stack.push_async_callback(shop.close)
            await shop.start()
            return shop

        yield start


async def events_in(kafka: str) -> list[events_pb2.ListingEvent]:
    """All events, in the order of each listing's."""
    records = await records_of(kafka, LISTINGS_EVENTS)
    return [events_pb2.ListingEvent.FromString(record.value) for record in records]


def path_of(uri: str) -> Path:
    return Path(url2pathname(urlsplit(uri).path))


async def test_a_shop_that_is_killed_goes_on_and_every_photo_is_there(
    kafka: str, tmp_path: Path, start_shop: StartShop
) -> None:
    shop = await start_shop()

    async def begun() -> bool:
        return len(await events_in(kafka)) > 10

    await until(begun, "the shop has begun")
    await shop.kill()
    assert json.loads((tmp_path / "photos" / POSITION_KEY).read_text())["next"] < STOCK
    again = await start_shop(shop_rate=0.01)
    await again.until_ready()
    sent = [(event.listing_id, event.version, event.kind) for event in await events_in(kafka)]
    expected = {
        (event.listing_id, event.version, KINDS[event.kind])
        for event in map(shop_event, range(STOCK))
        if event is not None
    }
    assert {kind for _, _, kind in expected} == {LISTED, SOLD}
    assert set(sent) == expected
    assert len(sent) <= len(expected) + 1, "the one that it was at is repeated at most"
    for event in await events_in(kafka):
        assert len(event.photo_uris) == (event.kind == LISTED)
        for uri in event.photo_uris:
            Image.open(path_of(uri)).verify()
    assert await again.stop() == 0


@pytest.mark.parametrize("content", ["{}", "nothing", '{"next": -1}', '{"next": "5"}'])
async def test_a_damaged_position_is_named_and_nothing_is_sent(
    kafka: str, tmp_path: Path, start_shop: StartShop, content: str
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / POSITION_KEY).write_text(content)
    shop = await start_shop()
    await until(lambda: shop.process.poll() is not None, "the shop has ended")
    assert shop.process.returncode
    assert "delete it to let the shop begin anew" in shop.log()
    assert not await events_in(kafka)
