"""Another model beside the first: re-index, switch under load, and back, with nothing stubbed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import aioboto3
import pytest

from shashin.client.listing_events import SOLD
from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import free_port
from shashin.local.system import UpOptions
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.rendered_listings import RenderedListing, rendered
from tests.support.running_system import ConnectedSystem, RunningSystem, listing_ids_of
from tests.support.seaweed import ACCESS_KEY, BUCKET, SECRET, SeaweedFs
from tests.support.second_model import MODEL, save_second_model
from tests.support.shashin_command import shashin
from tests.support.waiting import until

FIRST = "demo-v1"
OPTIONS = UpOptions(bucket_seconds=4, grace_seconds=1.0, partitions=2)


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


def write_reindex(path: Path, name: str) -> None:
    """Write the document of a build that indexes everything of the last hour again."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    document = {
        "apiVersion": "shashin.dev/v1alpha1",
        "kind": "IndexBuild",
        "metadata": {"name": name},
        "spec": {
            "model": MODEL,
            "dimensions": 64,
            "tier": "daily",
            "window": {
                "start": (hour - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "end": (hour + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "source": {"reindex": {"fromModel": FIRST}},
        },
    }
    path.write_text(json.dumps(document))


async def test_a_second_model_takes_over_with_all_listings_without_a_request_for_a_photo(
    bucket: CuttingProxy, tmp_path: Path
) -> None:
    folder, checkpoint = tmp_path / "state", tmp_path / "half.pt"
    await asyncio.to_thread(save_second_model, checkpoint)
    await EmbeddedKafka(folder, port=free_port()).start()
    listings = [rendered(5000 + number, photos=2) for number in range(24)]
    old, new, sold = listings[:20], listings[20:], listings[3]
    async with running(folder, OPTIONS) as connected:
        await publish(connected, bucket, old)
        await connected.until_sealed(*(listing.listing_id for listing in old))
    both = UpOptions(**{**vars(OPTIONS), "also": str(checkpoint)})
    async with running(folder, both) as connected:
        await publish(connected, bucket, new)
        await connected.publish(sold.listing_id, version=2, kind=SOLD)
        await connected.until_versions({sold.listing_id: None})
        await connected.until_sealed(*(listing.listing_id for listing in new))
        await takes_over(connected, bucket, folder, checkpoint)
        on_sale = {listing.listing_id: listing for listing in listings if listing != sold}
        await switch_under_load(connected, folder, on_sale)


async def takes_over(
    connected: ConnectedSystem, bucket: CuttingProxy, folder: Path, checkpoint: Path
) -> None:
    refused = await shashin("model", "activate", MODEL, state=folder, ends_with=2)
    assert "which builds with source.reindex bring: " in refused.error
    before = bucket.requests
    assert before, "photos came from the bucket"
    document = folder.parent / "again.json"
    write_reindex(document, "again")
    settings = {"SHASHIN_CACHE_FOLDER": str(folder.parent / "cache")}
    await shashin("builds", "run", document, "--model", checkpoint, state=folder, env=settings)
    assert bucket.requests == before

    async def complete() -> bool:
        listed = await shashin("model", "ls", "--json", state=folder)
        (model,) = (one for one in listed.document if one["model"] == MODEL)
        return bool(model["complete"]) and not model["problems"]

    await until(complete, f"{MODEL} has everything", limit_seconds=120)


async def switch_under_load(
    connected: ConnectedSystem, folder: Path, on_sale: dict[str, RenderedListing]
) -> None:
    answers: Counter[str] = Counter()
    nearest: Counter[tuple[str, bool]] = Counter()
    stop = asyncio.Event()

    async def search() -> None:
        while not stop.is_set():
            for listing in on_sale.values():
                answer = await connected.answer(photo=listing.photos[0], k=5)
                if answer is None:  # a busy machine misses a deadline
                    continue
                found = listing_ids_of(answer)
                assert set(found) <= on_sale.keys()
                answers[answer.model_id] += 1
                nearest[answer.model_id, found[:1] == [listing.listing_id]] += 1
                if stop.is_set():
                    break

    searching = asyncio.ensure_future(search())
    try:
        for model in (MODEL, FIRST):
            await shashin("model", "activate", model, state=folder)
            wanted = answers[model] + len(on_sale)
            await until(
                partial(_has_answered, answers, model, wanted, searching),
                f"{model} is searched",
                limit_seconds=120,
            )
    finally:
        stop.set()
        await searching
    assert answers.keys() == {FIRST, MODEL}
    for model in (MODEL, FIRST):
        right, wrong = nearest[model, True], nearest[model, False]
        assert right >= 0.9 * (right + wrong), f"{model}: {right} of {right + wrong}"


def _has_answered(
    answers: Counter[str], model: str, wanted: int, searching: asyncio.Future[None]
) -> bool:
    return answers[model] >= wanted or searching.done()
