"""Following ``listings.hidden``: every partition, from its beginning, for as long as the process lives."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter, Gauge

from shashin.errors import ShashinError
from shashin.kafka.log_reader import LogReader
from shashin.kafka.records import InRecord
from shashin.kafka.retry import until_done
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.runtime.health import Health
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import sleep_unless
from shashin.serving.served_shards import ServedShards
from shashin.v1 import events_pb2

HIDDEN_RECORDS = Counter("shashin_hidden_records", "Records of listings.hidden that were applied.")
HIDDEN_LISTINGS = Gauge("shashin_hidden_listings", "Listings in the hidden map.")
BAD_RECORDS = Counter(
    "shashin_hidden_bad_records", "Records of listings.hidden that name no listing; left out."
)

CONDITION = "hidden listings"

log = get_logger(__name__)


async def follow_hidden(
    served: ServedShards, *, bootstrap: str, client_id: str, health: Health, stopping: asyncio.Event
) -> None:
    """Apply every record to the served shards; ready once the end, as of the start, is reached."""
    beat = health.heartbeat("follower of " + LISTINGS_HIDDEN)
    health.require(CONDITION, waiting_for="the end of " + LISTINGS_HIDDEN)
    HIDDEN_LISTINGS.set_function(lambda: len(served.hidden))
    while not stopping.is_set():
        try:
            await _follow(served, bootstrap, client_id, health, stopping)
        except ShashinError as error:
            if not error.retryable:
                raise
            # Applying a record twice changes nothing: begin again.
            log.warning("following hidden listings failed: beginning again", error=error.message)
            beat.beat()
            await sleep_unless(stopping, 1.0)


async def _follow(
    served: ServedShards, bootstrap: str, client_id: str, health: Health, stopping: asyncio.Event
) -> None:
    beat = health.heartbeat("follower of " + LISTINGS_HIDDEN)
    async with LogReader(bootstrap, LISTINGS_HIDDEN, client_id=client_id) as reader:
        partitions = await until_done(
            "find " + LISTINGS_HIDDEN, reader.partitions, stopping=stopping, beat=beat
        )
        positions = await reader.begin_offsets(partitions)
        behind = {
            partition: end
            for partition, end in (await reader.end_offsets(partitions)).items()
            if end > positions[partition]
        }
        reader.start_at(positions)
        while not stopping.is_set():
            beat.beat()
            behind = {p: end for p, end in behind.items() if await reader.position(p) < end}
            if not behind:
                health.set_ready(CONDITION)
            for records in (await reader.read(timeout_seconds=0.5, max_records=2_000)).values():
                for record in records:
                    _apply(served, record)
            if reader.known_partitions() != partitions:
                log.info("listings.hidden has new partitions: beginning again")
                return


def _apply(served: ServedShards, record: InRecord) -> None:
    message = events_pb2.HiddenListing()
    try:
        message.ParseFromString(record.value)
    except Exception as error:  # noqa: BLE001
        BAD_RECORDS.inc()
        log.warning("not a HiddenListing: left out", record=str(record), error=str(error))
        return
    if not message.listing_id:
        BAD_RECORDS.inc()
        log.warning("a HiddenListing without an id: left out", record=str(record))
        return
    served.hide(message.listing_id, message.below_version)
    HIDDEN_RECORDS.inc()
