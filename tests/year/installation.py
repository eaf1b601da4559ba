"""An installation on a clock of its own: the services' own code, without their processes.

The logs are in memory, since a broker's clock cannot be driven. Everything else is what production
runs: the indexer's cuts and sealer, the model repository on a real object store, the image builder's
planning and hand-over, an index server's follower per tier, the builds' planning and steps, pruning,
search and coverage.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from services.image_builder.handlers import Builder
from services.image_builder.rollout import PointerRollout
from services.image_builder.settings import ImageBuilderSettings
from services.index_server.settings import IndexServerSettings
from services.index_server.swap import ShardSwapper
from services.index_server.tier import TierFollower
from services.indexer.handlers import parse_batch
from services.indexer.live_tier import LiveTier
from services.indexer.partition import Add, Cut
from services.indexer.release import due_for_release
from services.indexer.sealing import Sealer
from services.indexer.settings import IndexerSettings
from services.indexer.start_offsets import StartOffset
from services.router.merge import EndpointHits, merge, truncated
from services.router.search import initial_k
from shashin.builds.document import IndexBuild
from shashin.builds.planning import plan_builds
from shashin.builds.policy import Policy
from shashin.builds.recorded import FolderBuilds
from shashin.builds.records import BuildRecords
from shashin.builds.step import StepContext
from shashin.builds.step_reports import ProgressFile
from shashin.builds.steps import build, embed, fetch, publish, select
from shashin.codecs.hit_lists import hits_in
from shashin.kafka.producer import OutRecord
from shashin.kafka.records import InRecord
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.objectstore.protocol import ObjectStore
from shashin.offsets.coverage import Position, missing_ranges
from shashin.offsets.log_position import LogPosition
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.horizons import Horizons
from shashin.repository.pruning import InUse, plan_pruning, prune
from shashin.repository.quantizers import Quantizers
from shashin.repository.repository import ModelRepository
from shashin.runtime.logging import get_logger
from shashin.runtime.work_folder import WorkFolder
from shashin.serving.catch_up import CatchUp
from shashin.serving.hidden_listings import RecentlyHidden
from shashin.serving.hiding import entry_of
from shashin.serving.index_servers import HeldShard
from shashin.serving.served_shards import ServedShards
from shashin.shards.open_shard import OpenShard
from shashin.shards.row_filter import RowFilter
from shashin.shards.shard import Shard
from shashin.shards.visibility import HiddenEntry
from shashin.tiers import LIVE, SEALED_TIERS
from shashin.v1 import events_pb2
from tests.support.hidden_log import MemoryLog
from tests.support.hit_columns import hit_columns
from tests.support.loops import loop_scope
from tests.support.loops import running as running_loops
from tests.support.waiting import until
from tests.year.calendar import Change
from tests.year.truth import DIMENSIONS, Vectors, photo_vector

MODEL = "year"
PARTITIONS = 4
STEPS = {
    "select": select.run,
    "fetch": fetch.run,
    "embed": embed.run,
    "build": build.run,
    "publish": publish.run,
}

log = get_logger(__name__)


class Hidden:
    """``listings.hidden`` and the map of it that an indexer needs for rows to come."""

    def __init__(self) -> None:
        self.log = MemoryLog(
            records={partition: [] for partition in range(PARTITIONS)},
            begins=dict.fromkeys(range(PARTITIONS), 0),
        )
        self._below: dict[str, int] = {}

    def append(self, partition: int, listing_id: str, below: int) -> HiddenEntry:
        """Append a record; returns what it hides."""
        record = self.log.append(listing_id, below, partition=partition)
        self._below[listing_id] = max(below, self._below.get(listing_id, 0))
        parsed = entry_of(record)
        assert parsed is not None
        return parsed[0]

    def visible(self, listing_id: str, version: int) -> bool:
        """Whether a row of this version is visible."""
        return version >= self._below.get(listing_id, 0)

    def position(self) -> LogPosition:
        """Return the end of the log."""
        bounds = self.log.bounds()
        return LogPosition(bounds.topic_id, bounds.ends)


class NoProducer:
    """Takes announcements: planning is woken by the test."""

    async def send_all(self, records: Sequence[OutRecord]) -> None:
        """Drop records."""


class IndexServer:
    """The shards of one tier, as an index server serves them."""

    def __init__(self, tier: str, folder: Path, store: ObjectStore, hidden: Hidden) -> None:
        self.tier = tier
        self.served = ServedShards()
        self.served.hidden_loaded = True
        self.recent = RecentlyHidden()
        self.recent.open_at(hidden.log.bounds())
        self._repository = ModelRepository(store)
        settings = IndexServerSettings(
            model_id=MODEL,
            dimensions=DIMENSIONS,
            repository="file:///unused",
            kafka="unused:1",
            tier=tier,
            work_folder=folder,
        )
        self._swapper = ShardSwapper(
            settings.space,
            tier,
            self.served,
            HiddenSnapshots(store),
            CatchUp(self.served, self.recent, hidden.log.opened, "stop"),
        )
        self._follower = TierFollower(settings, WorkFolder(folder), self._repository, self._swapper)
        self._scope = loop_scope()

    async def follow(self) -> None:
        """Swap to what the pointer names."""
        pointer, _ = await self._repository.read_pointer(MODEL, self.tier)
        if pointer is not None:
            await self._follower._swap_to(pointer, self._scope)
            assert not self._swapper.bad, self._swapper.bad

    def hide(self, entry: HiddenEntry, position: LogPosition) -> None:
        """Apply a record of listings.hidden."""
        self.recent.note([entry], position)
        self.served.hide_all([entry])

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards served."""
        return self.served.snapshot().shards


@dataclass
class Peaks:
    """The worst that was seen."""

    shards: int = 0
    """Served at once after everything due was done."""
    gaps: int = 0
    """Moments at which some offset was in no tier."""
    builds: int = 0
    rewrites: int = 0


class Installation:
    """All tiers of one model."""

    def __init__(self, folder: Path, store: ObjectStore, uri: str) -> None:
        self.folder = folder
        self.store = store
        self.uri = uri
        self.repository = ModelRepository(store)
        self.hidden = Hidden()
        self.peaks = Peaks()
        self.live_served = ServedShards()
        self.live_served.hidden_loaded = True
        settings = IndexerSettings(
            model_id=MODEL,
            dimensions=DIMENSIONS,
            repository="file:///unused",
            kafka="unused:1",
            discovery="static:indexer=127.0.0.1:1",
            work_folder=folder / "indexer",
        )
        self.live = LiveTier(settings, self.live_served, self.hidden)
        self.live.open_partitions({p: StartOffset(0, 0) for p in range(PARTITIONS)})
        self._space = settings.space
        self._ends = dict.fromkeys(range(PARTITIONS), 0)
        self._executor = ThreadPoolExecutor(1)
        self.sealer = Sealer(
            settings,
            WorkFolder(folder / "indexer"),
            self.repository,
            Quantizers(store, MODEL),
            HiddenSnapshots(store),
            cast("Any", NoProducer()),
            self._executor,
            self._committed,
            self.hidden.position,
        )
        self.servers = {
            tier: IndexServer(tier, folder / tier, store, self.hidden) for tier in SEALED_TIERS
        }
        self.builder = Builder(
            ImageBuilderSettings(
                model_id=MODEL,
                repository="file:///unused",
                kafka="unused:1",
                discovery="static:indexer=127.0.0.1:1",
                hand_over_after_seconds=0,
            ),
            ModelRepository(store),
            PointerRollout(ModelRepository(store)),
            self,
            Horizons(store, MODEL),
        )
        self._scope = loop_scope(ready_when="the first plan")
        self.policy = Policy()
        self.records = BuildRecords(folder / "state")

    async def _committed(self, shard: OpenShard) -> None:
        self.live.held.mark_committed(shard.shard_id)

    async def held(self) -> list[HeldShard]:
        """Return what index servers hold, as they describe it to the image builder."""
        return [
            HeldShard(tier, cast("Any", shard).shard_id, shard.ranges)
            for tier, server in self.servers.items()
            for shard in server.shards
        ]

    def running(self) -> Any:
        """Run the sealer's loop while the context is open."""
        return running_loops(self.sealer.loop())

    # --- the log --------------------------------------------------------------------------------

    def apply(self, change: Change) -> None:
        """Append what happened to the logs, and let the live tier read it."""
        partition = int(change.listing_id[1:]) % PARTITIONS
        if change.kind == "hide":
            self._hide(partition, change.listing_id, change.version)
            return
        message = events_pb2.EmbeddedListing(
            listing_id=change.listing_id,
            version=change.version,
            kind=events_pb2.LISTING_KIND_LISTED,
            model_id=MODEL,
            dimensions=DIMENSIONS,
            vectors=[
                events_pb2.PhotoVector(
                    photo_number=photo,
                    vector=photo_vector(change.listing_id, change.version, photo)
                    .astype("<f2")
                    .tobytes(),
                    uri=f"s3://photos/{change.listing_id}/{photo}.jpg",
                )
                for photo in range(change.photos)
            ],
        )
        record = InRecord(
            VECTORS_EMBEDDED,
            partition,
            self._ends[partition],
            int(change.at.timestamp() * 1000),
            change.listing_id.encode(),
            message.SerializeToString(),
        )
        self._ends[partition] += 1
        state = self.live.partitions[partition]
        batch = parse_batch([record], self._space)
        assert not batch.dead_letters
        for step in state.steps(batch.records):
            match step:
                case Add(records=added):
                    state.add(added)
                case Cut() as cut:
                    self.sealer.seal(self.live.cut(state), cut.reason)
        if batch.superseding:
            self._hide(partition, change.listing_id, change.version)

    def _hide(self, partition: int, listing_id: str, below: int) -> None:
        entry = self.hidden.append(partition, listing_id, below)
        self.live_served.hide_all([entry])
        for server in self.servers.values():
            server.hide(entry, self.hidden.position())

    # --- time passes ----------------------------------------------------------------------------

    async def seal_what_is_idle(self, now: datetime) -> None:
        """Cut partitions whose bucket is over, and wait until everything closed is committed."""
        for partition, state in self.live.partitions.items():
            cut = state.idle_cut(self._ends[partition], int(now.timestamp() * 1000))
            if cut is not None:
                self.sealer.seal(self.live.cut(state), cut.reason)
        held = self.live.held
        await until(
            lambda: len(held.releasable()) == len(held.shards), "closed shards are committed"
        )

    async def settle(self, now: datetime) -> None:
        """Let everything that follows from the present state happen: roll out, build, hand over."""
        if await self.repository.announced(MODEL):
            await self._roll_out()
        while planned := await self._planned(now):
            for one in planned:
                await self._build(one)
                self.peaks.builds += 1
            await self._roll_out()
        shards = [shard for server in self.servers.values() for shard in server.shards]
        self.peaks.shards = max(self.peaks.shards, len(shards))

    async def _roll_out(self) -> None:
        check_served = True
        while True:
            waiting = await self.builder.plan_round(self._scope, check_served=check_served)
            check_served = False
            self.check_coverage()
            for server in self.servers.values():
                await server.follow()
                self.check_coverage()
            self._release()
            self.check_coverage()
            announced = await self.repository.announced(MODEL)
            if not waiting and not announced:
                return

    def _release(self) -> None:
        held = [r for server in self.servers.values() for s in server.shards for r in s.ranges]
        due, _ = due_for_release(self.live.held.releasable(), held, {}, 0.0, 0.0)
        self.live.release(due)

    async def _planned(self, now: datetime) -> list[IndexBuild]:
        found = await plan_builds(
            self.repository, self.uri, FolderBuilds(self.records), MODEL, now, self.policy
        )
        assert [*found.pending, *found.unfinished, *found.left_out] == []
        return [self.records.record(name).read_document() for name in found.created]

    async def _build(self, document: IndexBuild) -> None:
        work = self.folder / "build"
        for name, run in STEPS.items():
            out = work / "out" / name
            out.mkdir(parents=True)
            context = StepContext(
                name=name,
                build=document,
                work=work / "shared",
                out=out,
                repository=self.uri,
                log=log,
                reported=ProgressFile(None),
            )
            await run(context)
        rewrites = json.loads((work / "out/build/shard/manifest.json").read_text())["rewrites"]
        self.peaks.rewrites = max(self.peaks.rewrites, rewrites)
        await asyncio.to_thread(shutil.rmtree, work)
        self.records.record(document.name).remove()

    def check_coverage(self) -> None:
        """Count a gap if some offset is in no tier."""
        ranges = [r for shards in self.tiers().values() for s in shards for r in s.ranges]
        positions = {p: Position(0, end) for p, end in self._ends.items()}
        if missing := missing_ranges(ranges, positions):
            self.peaks.gaps += 1
            log.error("offsets in no tier", missing=[str(r) for r in missing])

    def tiers(self) -> Mapping[str, tuple[Shard, ...]]:
        """Return the served shards of every tier."""
        sealed = {tier: server.shards for tier, server in self.servers.items()}
        return {LIVE: self.live_served.snapshot().shards, **sealed}

    # --- at the end -----------------------------------------------------------------------------

    async def prune(self) -> None:
        """Delete what nothing needs any more."""
        held = [shard.shard_id for shard in await self.held()]
        planned = await plan_pruning(
            self.store, MODEL, InUse(held=held), committed_before=time.time() + 1
        )
        await prune(self.store, planned)

    async def sizes(self) -> tuple[int, int]:
        """Return the bytes of all objects, and of the files of the shards served."""
        stored = sum(info.size for info in await self.store.list_objects(""))
        manifests = [
            cast("Any", shard).manifest
            for server in self.servers.values()
            for shard in server.shards
        ]
        return stored, sum(entry.size for manifest in manifests for entry in manifest.files)

    def visible_rows(self) -> dict[tuple[str, int, int], list[str]]:
        """Return every row that a search can find, with the tiers that have it."""
        found: defaultdict[tuple[str, int, int], list[str]] = defaultdict(list)
        for tier, shards in self.tiers().items():
            for shard in shards:
                for number in np.flatnonzero(cast("Any", shard)._masked.visible[: shard.rows]):
                    row = shard.row(int(number))
                    found[row.listing_id, row.version, row.photo_number].append(tier)
        return found

    def search(self, query: Vectors, k: int = 10) -> list[tuple[str, int, int]]:
        """Search all tiers as the router does; returns listing, version and photo of the hits."""
        count = initial_k(k)
        while True:
            answers = []
            served = {LIVE: self.live_served}
            served |= {tier: server.served for tier, server in self.servers.items()}
            for tier, of_tier in served.items():
                snapshot = of_tier.snapshot()
                hits = snapshot.searched.search(query[None], count, RowFilter())
                columns = hit_columns([(hits, 0, 1)], snapshot.shards, 0)
                answers.append(EndpointHits(tier, count, hits_in(columns, 1, 0)))
            merged = merge(answers, k)
            if not truncated(answers, merged, k):
                return [(hit.listing_id, hit.version, hit.photo_number) for hit in merged]
            count *= 2
