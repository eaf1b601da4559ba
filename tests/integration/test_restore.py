"""A backup of the running system, restored into an empty repository."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from shashin.client.listing_events import SOLD
from shashin.objectstore.open import opened_object_store
from shashin.repository.repository import ModelRepository
from shashin.tiers import HOURLY
from tests.support.rendered_listings import RenderedListing, rendered
from tests.support.running_system import ConnectedSystem, RunningSystem
from tests.support.shashin_command import shashin

Answer = list[tuple[str, int, float]]


async def answers_of(system: ConnectedSystem, listings: list[RenderedListing]) -> list[Answer]:
    """Return the hits for the first photo of each listing, with scores.

    Without those that are as near as the last one: other tests leave many listings with one photo, and which
    of more than fit are found depends on how they lie in shards.
    """
    found = []
    for listing in listings:
        answer = await system.complete_answer(photo=listing.photos[0], k=10)
        hits = [(h.listing_id, h.version, round(h.score, 4)) for h in answer.hits]
        found.append([hit for hit in hits if hit[2] > hits[-1][2]])
    return found


async def made(first: int, count: int) -> list[RenderedListing]:
    """Return listings of one photo."""
    numbers = range(first, first + count)
    return [await asyncio.to_thread(rendered, number, photos=1) for number in numbers]


async def hourly_shards(system: RunningSystem) -> set[str]:
    async with opened_object_store(system.system.repository) as store:
        pointer, _ = await ModelRepository(store).read_pointer(system.system.model_id, HOURLY)
    return {shard.shard_id for shard in pointer.shards} if pointer is not None else set()


async def test_a_restored_system_gives_the_same_answers_and_what_was_sold_stays_gone(
    system: ConnectedSystem, running_system: RunningSystem, tmp_path: Path
) -> None:
    state, backup = running_system.system.folder, (tmp_path / "backup").as_uri()
    kept, sold = await made(90_000, 4), await made(91_000, 3)
    for listing in (*kept, *sold):
        await system.publish(listing.listing_id, listing.photos, attributes=listing.attributes)
    names = [listing.listing_id for listing in kept]
    gone = dict.fromkeys(listing.listing_id for listing in sold)
    await system.until_sealed(*names, *gone)
    for listing_id in gone:
        await system.publish(listing_id, version=2, kind=SOLD)
    await system.until_versions(gone)
    queries = [*kept, *sold, *system.corpus[:3]]
    before = await answers_of(system, queries)
    exported = await shashin("indexes", "export", backup, "--json", state=state)
    assert exported.document["problems"] == []
    shards = await hourly_shards(running_system)
    await running_system.stop()
    repository = state / "repository"
    assert repository.as_uri() == running_system.system.repository
    shutil.rmtree(repository)
    imported = await shashin("indexes", "import", backup, "--json", state=state)
    assert (imported.document["problems"], imported.document["shards"] > 0) == ([], True)
    assert await hourly_shards(running_system) <= shards
    await running_system.start_again()
    async with running_system.connected() as restored:
        await restored.until_versions(dict.fromkeys(names, 1) | gone)
        await restored.until_sealed(*names)
        assert await answers_of(restored, queries) == before
        assert all(before)
        assert not {h[0] for hits in before for h in hits} & gone.keys()
    assert "no problems" in (await shashin("indexes", "verify", state=state)).out
