"""Merging and handing over in the running system: nothing is missing at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shashin.objectstore.open import opened_object_store
from shashin.repository.pointer import Pointer
from shashin.repository.repository import ModelRepository
from shashin.tiers import DAILY, HOURLY, LIVE, SEALED_TIERS
from tests.support.running_system import ConnectedSystem, listing_ids_of
from tests.support.shashin_command import shashin
from tests.support.waiting import until

_ENDPOINTS = 1 + len(SEALED_TIERS)
"""One for each tier."""


async def pointer_of(system: ConnectedSystem, tier: str) -> Pointer | None:
    async with opened_object_store(system.system.repository) as store:
        pointer, _ = await ModelRepository(store).read_pointer(system.system.model_id, tier)
        return pointer


class Watch:
    """Searches all the time; every answer has to contain the listing whose photo it is, once.

    A process that does not answer its probe in time, as on a busy machine, is not asked for a while: such answers
    do not count, if the supervisor says so.
    """

    def __init__(self, system: ConnectedSystem) -> None:
        self._system = system
        self._done = asyncio.Event()
        self._log = system.running.log("supervisor")
        self._logged = self._log.stat().st_size
        self.answers = 0
        self.wrong: list[str] = []

    async def __aenter__(self) -> Watch:
        self._searching = asyncio.ensure_future(self._search())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._done.set()
        await self._searching

    async def _search(self) -> None:
        corpus = self._system.corpus
        while not self._done.is_set():
            listing = corpus[self.answers % len(corpus)]
            answer = await self._system.answer(photo=listing.photos[0], k=10)
            if answer is None or answer.failed_endpoints:
                continue
            if answer.endpoints_asked < _ENDPOINTS and self._some_process_hung():
                continue
            self.answers += 1
            found = listing_ids_of(answer)
            if answer.coverage.missing or listing.listing_id not in found:
                self.wrong.append(f"{listing.listing_id}: {answer.coverage}")
            if len(set(found)) != len(found):
                self.wrong.append(f"found twice: {found}")

    def _some_process_hung(self) -> bool:
        return b"no response within" in self._log.read_bytes()[self._logged :]


async def until_hourly(
    system: ConnectedSystem, holds: Callable[[Pointer], bool], what: str
) -> Pointer:
    """Wait until something holds for the hourly pointer; returns it."""

    async def found() -> list[Pointer]:
        pointer = await pointer_of(system, HOURLY)
        return [pointer] if pointer is not None and holds(pointer) else []

    pointers: list[Pointer] = await until(found, what, limit_seconds=60)
    return pointers[0]


async def test_shards_are_merged_rolled_back_and_pruned_while_nothing_is_missing(
    system: ConnectedSystem,
) -> None:
    ids = [listing.listing_id for listing in system.corpus]
    state = system.system.folder
    await system.until_sealed(*ids)
    before = await until_hourly(system, lambda p: len(p.shards) >= 2, "several shards are served")
    async with Watch(system) as watch:
        await shashin("builds", "plan", "--run", "--fan-in", "2", state=state)
        after = await until_hourly(
            system, lambda p: any(shard.rewrites for shard in p.shards), "a merged shard is served"
        )
        assert len(after.shards) < len(before.shards)
        await system.until_sealed(*ids)
        assert "added" in (await shashin("indexes", "history", state=state)).out
        child = next(shard.shard_id for shard in after.shards if shard.rewrites)
        done = await shashin("indexes", "rollback", child, "--yes", state=state)
        assert "parents are served again" in done.out
        await until_hourly(
            system,
            lambda p: child not in {shard.shard_id for shard in p.shards},
            "its parents are served again",
        )
        await system.until_sealed(*ids)
    assert (watch.wrong, watch.answers > 0) == ([], True)
    dry = await shashin("indexes", "prune", "--keep-days", "0", state=state)
    assert "may be deleted: --yes deletes them" in dry.out
    await shashin("indexes", "prune", "--keep-days", "0", "--yes", state=state)
    assert "no problems" in (await shashin("indexes", "verify", state=state)).out
    for listing in system.corpus[:5]:
        answer = await system.complete_answer(photo=listing.photos[0], k=10)
        assert listing.listing_id in listing_ids_of(answer)


async def daily_build_of(system: ConnectedSystem, pointer: Pointer) -> dict[str, Any]:
    """Return the document of a build that merges all shards of a pointer into the daily tier."""
    async with opened_object_store(system.system.repository) as store:
        first = await ModelRepository(store).read_shard(pointer.shards[0].manifest_key)
    starts = [shard.bucket_start for shard in pointer.shards]
    start, end = (datetime.fromtimestamp(at, UTC) for at in (min(starts), max(starts) + 1))
    return {
        "apiVersion": "shashin.dev/v1alpha1",
        "kind": "IndexBuild",
        "metadata": {"name": "everything-sealed"},
        "spec": {
            "model": first.manifest.model_id,
            "dimensions": first.manifest.dimensions,
            "tier": DAILY,
            "window": {"start": f"{start:%Y-%m-%dT%H:%M:%SZ}", "end": f"{end:%Y-%m-%dT%H:%M:%SZ}"},
            "source": {"shards": [shard.shard_id for shard in pointer.shards]},
        },
    }


async def test_hourly_shards_are_handed_over_to_the_daily_tier_and_back_while_nothing_is_missing(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    ids = [listing.listing_id for listing in system.corpus]
    state = system.system.folder
    await system.until_sealed(*ids)
    before = await pointer_of(system, HOURLY)
    assert before is not None
    document = tmp_path / "build.json"
    document.write_text(json.dumps(await daily_build_of(system, before)))
    async with Watch(system) as watch:
        await shashin("builds", "run", document, state=state)
        await system.until_only_in(DAILY, *ids)
        daily = await pointer_of(system, DAILY)
        assert daily is not None
        (child,) = (shard.shard_id for shard in daily.shards)
        await shashin("indexes", "rollback", child, "--yes", state=state)
        await system.until_sealed(*ids)
    assert (watch.wrong, watch.answers > 0) == ([], True)
    await shashin("builds", "rm", "everything-sealed", state=state)


async def test_every_tier_is_served_by_an_endpoint_of_its_own(system: ConnectedSystem) -> None:
    status = await system.router.status()
    tiers = {endpoint.tier for endpoint in status.endpoints}
    assert tiers >= {LIVE, HOURLY, DAILY, "monthly"}
