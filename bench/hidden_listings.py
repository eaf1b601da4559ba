"""Measures what a growing ``listings.hidden`` costs: starts, memory, a record, a joining shard, a backlog.

Run as ``python -m bench.hidden_listings --records 10000 100000 1000000 10000000``. The log is that of
a real embedded Kafka and the services are real processes; the 10 million records take about 20 minutes
on two cores. None of the records concerns the shards that are served, except the last thousand.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import aiohttp
import numpy as np
import psutil
from confluent_kafka import Producer

from bench.nothing_hidden import NothingHidden
from services.indexer.hidden_store import HiddenStore
from shashin.kafka.log_reader import LogReader
from shashin.kafka.topic_admin import ensure_topics
from shashin.kafka.topics import LISTINGS_HIDDEN, hidden_key
from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import free_port
from shashin.model_space import ModelSpace
from shashin.objectstore.open import open_object_store
from shashin.offsets.log_position import LogPosition
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository
from shashin.runtime.health import Health
from shashin.runtime.scope import LoopScope
from shashin.serving.catch_up import CatchUp, Joining
from shashin.serving.hidden_follower import HiddenFollower
from shashin.serving.hidden_listings import RECENT_ENTRIES, LogBounds, RecentlyHidden
from shashin.serving.hiding_thread import RECORDS_AT_ONCE
from shashin.serving.served_shards import ServedShards
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.registry import growing_kind
from shashin.shards.open_shard import OpenShard
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.visibility import HiddenEntry
from shashin.terminal.console import echo, echo_stderr, echo_table
from shashin.tiers import HOURLY
from shashin.v1 import events_pb2

MODEL, DIMENSIONS = "bench", 4
PARTITIONS = 4
SHARDS, ROWS_EACH = 20, 1000
NEW_RECORDS = 1000
"""Records after the snapshots of the shards, a tenth of them about listings that are served."""

MANY_SHARDS, ROWS_OF_MANY = 1000, 1000
LARGE_ROWS = 50_000
MANY_OPEN = 64
MANY_HIDDEN = 1_000_000

FOLLOWED_SHARDS, SALES = 65, 200
"""Shards of the process whose follower is measured, and listings of them that are sold one by one."""


def listing(number: int) -> str:
    """Return the id of a listing."""
    return f"m{number:011d}"


def write_shard(folder: Path, first: int, rows: int) -> Manifest:
    """Write a shard of one row per listing from ``first`` on."""
    shard = OpenShard(
        0, first, ModelSpace(MODEL, DIMENSIONS), growing_kind("flat-f16"), NothingHidden()
    )
    vector = np.eye(1, DIMENSIONS, dtype=np.float32)[0]
    shard.add(
        [
            NewRow(Row(listing(number), 1, 0, RowAttributes()), vector)
            for number in range(first, first + rows)
        ],
        position=first + rows,
        bucket_start=0,
    )
    return shard.write(folder, tier=HOURLY, bucket_seconds=3600, reason="time")


def open_shard(number: int) -> OpenShard:
    """Return a shard of one partition that grows."""
    shard = OpenShard(
        number, 0, ModelSpace(MODEL, DIMENSIONS), growing_kind("flat-f16"), NothingHidden()
    )
    vector = np.eye(1, DIMENSIONS, dtype=np.float32)[0]
    first = 10**9 + number * ROWS_OF_MANY
    rows = [Row(listing(n), 1, 0, RowAttributes()) for n in range(first, first + ROWS_OF_MANY)]
    shard.add([NewRow(row, vector) for row in rows], position=ROWS_OF_MANY, bucket_start=0)
    return shard


def hide(kafka: str, first: int, end: int) -> None:
    """Hide a range of listings, in batches as large as those that services write."""
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 20, "batch.size": 16_384})
    for number in range(first, end):
        message = events_pb2.HiddenListing(
            listing_id=listing(number), below_version=2, reason=events_pb2.HIDDEN_REASON_SOLD
        )
        while True:
            try:
                producer.produce(
                    LISTINGS_HIDDEN,
                    message.SerializeToString(),
                    hidden_key(listing(number), 2),
                    partition=number % PARTITIONS,
                )
                break
            except BufferError:
                producer.poll(0.1)
        if number % 10_000 == 0:
            producer.poll(0)
    producer.flush()


class Bench:
    """A Kafka, a repository with served shards, and services over them."""

    def __init__(self, folder: Path, kafka: str) -> None:
        self.folder = folder
        self.kafka = kafka
        self.store = open_object_store((folder / "repository").as_uri())
        self.repository = ModelRepository(self.store)
        self.manifests: list[Manifest] = []

    async def seal(self) -> None:
        """Commit the shards and point to them; their listings are apart from those in the log."""
        for number in range(SHARDS):
            folder = self.folder / "scratch"
            manifest = write_shard(folder, 10**10 + number * ROWS_EACH, ROWS_EACH)
            await self.repository.commit_shard(manifest, folder)
            self.manifests.append(manifest)
        named = tuple(sorted(PointedShard.of(manifest) for manifest in self.manifests))
        await self.repository.move_pointer(Pointer(MODEL, HOURLY, named), over=None)

    async def write_snapshots(self) -> None:
        """Write what is hidden of the shards by now: nothing."""
        async with LogReader(self.kafka, LISTINGS_HIDDEN, client_id="bench") as reader:
            ends = await reader.end_offsets(await reader.partitions())
            position = LogPosition(await reader.topic_id(), ends)
        snapshots = HiddenSnapshots(self.store)
        for manifest in self.manifests:
            snapshot = HiddenSnapshot(
                manifest.shard_id,
                manifest.rows_sha256,
                np.empty(0, dtype=np.uint32),
                position,
                time.time(),
            )
            await snapshots.write(manifest, snapshot)

    async def delete_snapshots(self) -> None:
        """Leave the shards without a snapshot, as those of earlier versions are."""
        for manifest in self.manifests:
            found = await HiddenSnapshots(self.store).read(manifest)
            await HiddenSnapshots(self.store).delete(found.by_key)

    async def start(self, service: str, **settings: object) -> tuple[float, float]:
        """Start a service; returns the seconds until it is ready, and its resident MB then."""
        port = free_port()
        values: dict[str, object] = {
            "kafka": self.kafka,
            "http_port": port,
            "grpc_port": free_port(),
            "model_id": MODEL,
            "dimensions": DIMENSIONS,
            "repository": (self.folder / "repository").as_uri(),
            "work_folder": self.folder / f"work-{service}",
            "start_seconds": 7200,
            **settings,
        }
        own = {key: value for key, value in os.environ.items() if not key.startswith("SHASHIN_")}
        env = own | {f"SHASHIN_{name.upper()}": str(value) for name, value in values.items()}
        env |= {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        started = time.perf_counter()
        with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
            [sys.executable, "-m", f"services.{service}"], env=env, stdout=subprocess.DEVNULL
        ) as process:
            try:
                await _until_ready(port, process)
                seconds = time.perf_counter() - started
                return seconds, psutil.Process(process.pid).memory_info().rss / 1e6
            finally:
                process.terminate()


async def _until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    async with aiohttp.ClientSession() as session:
        while process.poll() is None:
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    raise SystemExit(f"the service ended with {process.returncode} before it was ready")


async def measure_starts(bench: Bench, records: int, *, replay: bool) -> dict[str, float]:
    """Return seconds and MB of each kind of start, with so many records in the log."""
    figures: dict[str, float] = {}

    async def measure(name: str, service: str, **settings: object) -> None:
        echo_stderr(f"{records:,} records: {name}")
        figures[f"{name}, s"], figures[f"{name}, MB"] = await bench.start(service, **settings)

    if replay:
        await bench.delete_snapshots()
        await measure("index server without snapshots", "index_server")
    await bench.write_snapshots()
    hide(bench.kafka, 10**10, 10**10 + NEW_RECORDS // 10)
    hide(bench.kafka, 2 * 10**10, 2 * 10**10 + NEW_RECORDS * 9 // 10)
    await measure("index server with snapshots", "index_server")
    store = bench.folder / "hidden"
    shutil.rmtree(store, ignore_errors=True)
    indexer = {
        "hidden_folder": store,
        "discovery": (bench.folder / "discovery.json").as_uri(),
        "repository": (bench.folder / "empty").as_uri(),
    }
    await measure("indexer that fills its store", "indexer", **indexer)
    await measure("indexer with its store", "indexer", **indexer)
    figures["store on disk, MB"] = (
        sum(path.stat().st_size for path in store.rglob("*") if path.is_file()) / 1e6
    )
    return figures


async def measure_records(folder: Path) -> dict[str, float]:
    """Return what a record and a joining shard cost a server of many shards, in milliseconds."""
    shards = []
    for number in range(MANY_SHARDS):
        path = folder / str(number)
        manifest = write_shard(path, number * ROWS_OF_MANY, ROWS_OF_MANY)
        shards.append(SealedShard(manifest, path))
    served = ServedShards()
    figures = {}
    started = time.perf_counter()
    served.serve(shards[:-1])
    figures[f"index over {MANY_SHARDS - 1} shards, ms"] = 1e3 * (time.perf_counter() - started)
    started = time.perf_counter()
    served.serve(shards)
    figures["index with one more shard, ms"] = 1e3 * (time.perf_counter() - started)
    one = ServedShards()
    one.serve(shards[:1])
    opened = ServedShards()
    opened.serve([open_shard(number) for number in range(MANY_OPEN)])
    for name, over, first in (
        ("elsewhere, 1 shard", one, 10**10),
        (f"elsewhere, {MANY_SHARDS} shards", served, 10**10),
        (f"in one of {MANY_SHARDS} shards", served, 0),
        (f"elsewhere, {MANY_OPEN} open shards", opened, 10**10),
    ):
        for at_once, repeats in ((1, 500), (RECORDS_AT_ONCE, 40)):
            batches = [
                [HiddenEntry(listing(first + n), 2) for n in range(at, at + at_once)]
                for at in range(0, repeats * at_once, at_once)
            ]
            started = time.process_time()
            for batch in batches:
                over.hide_all(batch)
            spent = time.process_time() - started
            figures[f"record of a listing {name}, {at_once} at once, ms"] = (
                1e3 * spent / (repeats * at_once)
            )
    path = folder / "large"
    large = SealedShard(write_shard(path, 10**9, LARGE_ROWS), path)
    recent = RecentlyHidden()
    bounds = LogBounds("bench", {0: 0}, {0: 10**9})
    recent.open_at(bounds)
    for begin in range(10**9 + RECENT_ENTRIES - MANY_HIDDEN, 10**9 + RECENT_ENTRIES, 10_000):
        recent.note(
            [HiddenEntry(listing(n % 10**9), 2, 0, n) for n in range(begin, begin + 10_000)],
            LogPosition("bench", {0: begin + 10_000}),
        )
    for name, behind in (("1,000", 1000), (f"{RECENT_ENTRIES:,}", RECENT_ENTRIES)):
        snapshot = HiddenSnapshot(
            large.shard_id,
            large.manifest.rows_sha256,
            np.arange(0, LARGE_ROWS, 10, dtype=np.uint32),
            LogPosition("bench", {0: 10**9 + RECENT_ENTRIES - behind}),
            0.0,
        )
        catch_up = CatchUp(served, recent, _no_log, "stop")
        started = time.process_time()
        joined = await catch_up.join([Joining(large, [snapshot])])
        served.leave(joined.shards)
        figures[f"masking {LARGE_ROWS:,} rows of {MANY_HIDDEN:,} hidden, {name} behind, ms"] = (
            1e3 * (time.process_time() - started)
        )
    return figures


async def measure_following(folder: Path, kafka: str, records: int) -> dict[str, float]:
    """Return what a backlog costs the event loop, and how long a sold listing is still found.

    The follower of this process reads the records that the log has by now into an empty store.
    """
    shards = []
    for number in range(FOLLOWED_SHARDS):
        path = folder / str(number)
        first = 3 * 10**10 + number * ROWS_EACH
        shards.append(SealedShard(write_shard(path, first, ROWS_EACH), path))
    served, store = ServedShards(), HiddenStore(folder / "store")
    served.serve(shards)
    follower = HiddenFollower(
        served, store, bootstrap=kafka, client_id="bench", superseded_after_seconds=2.0
    )
    health, stop, lags = Health(), asyncio.Event(), list[float]()
    loop = follower.loop()
    registered = health.register(loop.name, ready_when=loop.ready_when)

    async def measure_lags() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(1e3 * (time.perf_counter() - started) - 1)

    # A service has nothing of what was measured before, which the garbage collector would go through.
    gc.collect()
    gc.freeze()
    started = time.perf_counter()
    following = asyncio.ensure_future(loop.run(LoopScope(registered, stop)))
    measuring = asyncio.ensure_future(measure_lags())
    try:
        while registered.not_ready is not None:  # noqa: ASYNC110 - it is a state, no event
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - started
        measuring.cancel()
        gone = [await _sold_to_gone(kafka, shards[n % len(shards)], n) for n in range(SALES)]
    finally:
        stop.set()
        await following
        store.close()
        gc.unfreeze()
    name = f"backlog of {records:,}"
    return {
        f"{name}, s": seconds,
        f"{name}: delay of the event loop, p99, ms": float(np.percentile(lags, 99)),
        f"{name}: delay of the event loop, max, ms": max(lags),
        f"sold to gone with {FOLLOWED_SHARDS} shards, p50, ms": float(np.percentile(gone, 50)),
        f"sold to gone with {FOLLOWED_SHARDS} shards, p99, ms": float(np.percentile(gone, 99)),
    }


async def _sold_to_gone(kafka: str, shard: SealedShard, number: int) -> float:
    """Return the milliseconds from the acknowledged record of a sale to its hidden row."""
    sold, before = shard.listing_id(number), shard.hidden_rows
    acknowledged: list[float] = []
    message = events_pb2.HiddenListing(
        listing_id=sold, below_version=2, reason=events_pb2.HIDDEN_REASON_SOLD
    )
    producer = _producer(kafka)
    producer.produce(
        LISTINGS_HIDDEN,
        message.SerializeToString(),
        hidden_key(sold, 2),
        partition=number % PARTITIONS,
        on_delivery=lambda _error, _message: acknowledged.append(time.perf_counter()),
    )
    while shard.hidden_rows == before or not acknowledged:
        producer.poll(0)
        await asyncio.sleep(0.0002)
    return 1e3 * max(0.0, time.perf_counter() - acknowledged[0])


@cache
def _producer(kafka: str) -> Producer:
    return Producer({"bootstrap.servers": kafka, "linger.ms": 0})


@asynccontextmanager
async def _no_log() -> AsyncIterator[LogReader]:
    raise AssertionError("everything needed is known")
    yield


async def run(counts: Sequence[int], replay_up_to: int) -> dict[str, dict[str, float]]:
    """Measure at each number of records."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="shashin-bench-") as name:
        folder = Path(name)
        found["a record"] = await measure_records(folder / "many")
        kafka = EmbeddedKafka(folder, default_port=None, heap_mb=512)
        await kafka.start()
        try:
            await ensure_topics(kafka.bootstrap, partitions=PARTITIONS)
            bench = Bench(folder, kafka.bootstrap)
            await bench.seal()
            sent = 0
            for records in counts:
                echo_stderr(f"hiding {records:,} listings")
                await asyncio.to_thread(hide, kafka.bootstrap, sent, records)
                sent = records
                followed = await measure_following(
                    folder / f"followed-{records}", kafka.bootstrap, records
                )
                found["a record"] |= followed
                found[f"{records:,}"] = await measure_starts(
                    bench, records, replay=records <= replay_up_to
                )
        finally:
            await kafka.stop()
    return found


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.hidden_listings", description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument(
        "--replay-up-to",
        type=int,
        default=1_000_000,
        help="also start an index server without snapshots, up to so many records",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    found = asyncio.run(run(args.records, args.replay_up_to))
    echo_table(["", ""], [(name, f"{value:.4g}") for name, value in found.pop("a record").items()])
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    echo_table(
        ["", *(f">{records}" for records in found)],
        [
            (name, *(f"{f[name]:.4g}" if name in f else "" for f in found.values()))
            for name in names
        ],
    )
    echo(f"{os.cpu_count()} cores")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
