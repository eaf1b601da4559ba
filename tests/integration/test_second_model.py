"""Another model beside the first: re-index, switch under load, and back, with nothing stubbed.

Once with a model that was made for the test and published in the model repository, and rendered photos, and
once with the two models that come along and real photos, which only the second one is made for.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle, groupby
from pathlib import Path

import aioboto3
import pytest
from shashin_catalogue import real_photos_folder

from shashin.client.listing_events import SOLD, ListingAttributes
from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import free_port
from shashin.local.system import UpOptions
from shashin.model.loading import DEMO, IN_REPOSITORY, LITE, SHIPPED
from shashin.model.photo_folders import read_products
from shashin.model_space import ModelSpace
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.rendered_listings import RenderedListing, rendered
from tests.support.running_system import ConnectedSystem, RunningSystem, listing_ids_of
from tests.support.seaweed import ACCESS_KEY, BUCKET, SECRET, SeaweedFs
from tests.support.second_model import DIMENSIONS, MODEL, save_second_model
from tests.support.shashin_command import shashin
from tests.support.waiting import until

FIRST = DEMO
OPTIONS = UpOptions(bucket_seconds=4, grace_seconds=1.0, partitions=2)


@dataclass(frozen=True)
class Change:
    """A change from the first model to another one."""

    model: str
    """As the embedder and a build take it."""
    checkpoint: Path | None
    """What is published in the model repository first."""
    space: ModelSpace
    listings: Sequence[RenderedListing]
    least_found: float
    """Share of unseen photos whose product the other model has to find among the first three."""


@pytest.fixture
def change(request: pytest.FixtureRequest, tmp_path: Path) -> Change:
    if request.param == LITE:
        return Change(LITE, None, ModelSpace(LITE, SHIPPED[LITE]), real_listings(), 0.8)
    checkpoint = tmp_path / "half.pt"
    save_second_model(checkpoint)
    listings = [rendered(5000 + number, photos=2) for number in range(24)]
    space = ModelSpace(MODEL, DIMENSIONS)
    return Change(f"{IN_REPOSITORY}{MODEL}", checkpoint, space, listings, 0.8)


def real_listings() -> list[RenderedListing]:
    """Return the real products, each with two photos at most, and another one that is not published."""
    return [
        RenderedListing(
            f"real-{product.name}",
            tuple(path.read_bytes() for path in product.photos[:2]),
            (product.queries or product.photos)[0].read_bytes(),
            ListingAttributes(category="real", brand="", price_minor=100, currency="EUR"),
        )
        for product in read_products([real_photos_folder()])
    ]


@pytest.fixture
async def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CuttingProxy]:
    """A bucket whose requests are counted, and the settings to read photos from it."""
    seaweed = SeaweedFs(tmp_path / "seaweed")
    try:
        await seaweed.start()
        async with cutting_proxy(seaweed.port) as proxy:
            settings = {
                **seaweed.environment,
                "AWS_ENDPOINT_URL": proxy.url,
                "SHASHIN_PHOTO_BUCKETS": f"s3://{BUCKET}",
                "SHASHIN_CACHE_FOLDER": str(tmp_path / "cache"),
            }
            for name, value in settings.items():
                monkeypatch.setenv(name, value)
            yield proxy
    finally:
        await seaweed.kill()


@asynccontextmanager
async def running(folder: Path, options: UpOptions) -> AsyncIterator[ConnectedSystem]:
    """Run the system until the end, and start it again as it was left."""
    system = RunningSystem(folder)
    await system.system.start(options)
    try:
        async with system.connected() as connected:
            yield connected
    finally:
        await system.stop()


async def publish(
    connected: ConnectedSystem, proxy: CuttingProxy, listings: Sequence[RenderedListing]
) -> None:
    """Put the photos of listings into the bucket, publish them, and wait until they are found."""
    session = aioboto3.Session(ACCESS_KEY, SECRET, region_name="us-east-1")
    async with session.client("s3", endpoint_url=proxy.url) as client:
        for listing in listings:
            uris = []
            for number, photo in enumerate(listing.photos):
                key = f"{listing.listing_id}/{number}.jpg"
                await client.put_object(Bucket=BUCKET, Key=key, Body=photo)
                uris.append(f"s3://{BUCKET}/{key}")
            await connected.publish(listing.listing_id, uris, attributes=listing.attributes)
    await connected.until_versions({listing.listing_id: 1 for listing in listings})


def write_reindex(path: Path, name: str, space: ModelSpace) -> None:
    """Write the document of a build that indexes everything of the last hour again."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    document = {
        "apiVersion": "shashin.dev/v1alpha1",
        "kind": "IndexBuild",
        "metadata": {"name": name},
        "spec": {
            "model": space.model_id,
            "dimensions": space.dimensions,
            "tier": "daily",
            "window": {
                "start": (hour - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "end": (hour + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "source": {"reindex": {"fromModel": FIRST}},
        },
    }
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("change", [MODEL, LITE], indirect=True)
async def test_a_second_model_takes_over_with_all_listings_without_a_request_for_a_photo(
    bucket: CuttingProxy, tmp_path: Path, change: Change
) -> None:
    folder = tmp_path / "state"
    await EmbeddedKafka(folder, port=free_port()).start()
    listings = change.listings
    assert len(listings) == 24
    old, new, sold = listings[:20], listings[20:], listings[3]
    async with running(folder, OPTIONS) as connected:
        await publish(connected, bucket, old)
        await connected.until_sealed(*(listing.listing_id for listing in old))
    if change.checkpoint is not None:
        await shashin("model", "publish", change.checkpoint, state=folder)
    both = UpOptions(**{**vars(OPTIONS), "also": change.model})
    async with running(folder, both) as connected:
        await publish(connected, bucket, new)
        await connected.publish(sold.listing_id, version=2, kind=SOLD)
        await connected.until_versions({sold.listing_id: None})
        await connected.until_sealed(*(listing.listing_id for listing in new))
        await takes_over(connected, bucket, folder, change)
        on_sale = {listing.listing_id: listing for listing in listings if listing != sold}
        await switch_under_load(connected, folder, on_sale, change)


async def takes_over(
    connected: ConnectedSystem, bucket: CuttingProxy, folder: Path, change: Change
) -> None:
    model_id = change.space.model_id
    refused = await shashin("model", "activate", model_id, state=folder, ends_with=2)
    assert "which builds with source.reindex bring: " in refused.error
    before = bucket.requests
    assert before, "photos came from the bucket"
    document = folder.parent / "again.json"
    write_reindex(document, "again", change.space)
    settings = {"SHASHIN_CACHE_FOLDER": str(folder.parent / "cache")}
    await shashin("builds", "run", document, "--model", change.model, state=folder, env=settings)
    assert bucket.requests == before

    async def complete() -> bool:
        listed = await shashin("model", "ls", "--json", state=folder)
        (model,) = (one for one in listed.document if one["model"] == model_id)
        return bool(model["complete"]) and not model["problems"]

    await until(complete, f"{model_id} has everything", limit_seconds=120)


class Watched:
    """Searches by a published photo of each listing in turn, and what their answers had."""

    def __init__(self, connected: ConnectedSystem, on_sale: dict[str, RenderedListing]) -> None:
        self._connected = connected
        self._on_sale = on_sale
        self.models: list[str] = []
        """Of the answers, in their order: each query is sent after the answer to the one before."""
        self.first: dict[str, list[bool]] = defaultdict(list)
        """Of each model's answers: whether the listing was the first hit."""

    async def search(self, stop: asyncio.Event) -> None:
        """Search until told to stop."""
        for listing in cycle(self._on_sale.values()):
            if stop.is_set():
                return
            answer = await self._connected.answer(photo=listing.photos[0], k=5)
            if answer is None:  # a busy machine misses a deadline
                continue
            found = listing_ids_of(answer)
            assert set(found) <= self._on_sale.keys()
            # A vector of one model has a similarity to rows of another that is no higher than chance.
            own = [hit.score for hit in answer.hits if hit.listing_id == listing.listing_id]
            assert all(score > 0.95 for score in own), (answer.model_id, listing.listing_id, own)
            self.models.append(answer.model_id)
            self.first[answer.model_id].append(found[:1] == [listing.listing_id])


async def switch_under_load(
    connected: ConnectedSystem, folder: Path, on_sale: dict[str, RenderedListing], change: Change
) -> None:
    model_id = change.space.model_id
    watched, stop = Watched(connected, on_sale), asyncio.Event()
    searching = asyncio.ensure_future(watched.search(stop))
    try:
        for active in (FIRST, model_id, FIRST):
            if watched.models:
                await shashin("model", "activate", active, state=folder)
            wanted = watched.models.count(active) + len(on_sale)
            await until(
                partial(_has_answered, watched, active, wanted, searching),
                f"{active} is searched",
                limit_seconds=120,
            )
            if active == model_id:
                await finds_unseen_photos(connected, on_sale, change)
    finally:
        stop.set()
        await searching
    # No answer of the one model comes between those of the other.
    assert [model for model, _ in groupby(watched.models)] == [FIRST, model_id, FIRST]
    for model, first in watched.first.items():
        assert sum(first) >= 0.9 * len(first), f"{model}: {sum(first)} of {len(first)}"


async def finds_unseen_photos(
    connected: ConnectedSystem, on_sale: dict[str, RenderedListing], change: Change
) -> None:
    """Require that the second model finds products by photos that were not published."""
    found = 0
    for listing in on_sale.values():
        answer = await connected.complete_answer(photo=listing.unseen, k=3)
        assert answer.model_id == change.space.model_id
        found += listing.listing_id in listing_ids_of(answer)
    assert found >= change.least_found * len(on_sale), f"{found} of {len(on_sale)}"


def _has_answered(
    watched: Watched, model: str, wanted: int, searching: asyncio.Future[None]
) -> bool:
    return watched.models.count(model) >= wanted or searching.done()
