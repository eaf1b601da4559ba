"""The whole system as ``shashin up`` runs it, with Kafka and every service as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shashin.client.listing_events import LISTED, ListingAttributes, listing_event, record_of
from shashin.client.router import RouterClient, embed
from shashin.client.topic_tails import TopicTail, topic_tails
from shashin.errors import ShashinError
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.kafka.topics import (
    DEAD_LETTER_SUFFIX,
    DEAD_LETTER_TOPICS,
    LISTINGS_EVENTS,
    LISTINGS_HIDDEN,
)
from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import is_free
from shashin.local.processes import (
    ProcessRow,
    ProcessSpec,
    log_path,
    processes_path,
    read_plan,
    supervisor_identity,
)
from shashin.local.system import System, UpOptions
from shashin.tiers import HOURLY
from shashin.v1 import events_pb2, search_pb2
from shashin.workload.balance import Balance
from shashin.workload.ledger import Ledger
from tests.support.rendered_listings import RenderedListing, rendered
from tests.support.waiting import until

BUCKET_SECONDS = 4
GRACE_SECONDS = 1.0
PARTITIONS = 2
CORPUS = 60
RESTART_LIMIT = 150.0
"""Limit for a restart; on a busy machine, the embedder's imports take long."""

SERVICES = (
    "downloader",
    "embedder",
    "indexer",
    "index-server-hourly",
    "index-server-daily",
    "index-server-monthly",
    "image-builder",
    "router",
)


class RunningSystem:
    """One system in a state folder, with listings on sale that tests only search."""

    def __init__(self, folder: Path, *, canary: bool = False) -> None:
        self.system = System(folder)
        self._canary = canary
        self.corpus: list[RenderedListing] = []

    async def start(self) -> None:
        """Start every process, publish the corpus and wait until it is found."""
        _, self.corpus = await asyncio.gather(self.start_again(), asyncio.to_thread(_render_corpus))
        async with self.connected() as connected:
            for listing in self.corpus:
                await connected.publish(
                    listing.listing_id, listing.photos, attributes=listing.attributes
                )
            await connected.until_versions({li.listing_id: 1 for li in self.corpus})

    async def start_again(self) -> None:
        """Start every process, after a stop with what is in the state folder."""
        options = UpOptions(
            bucket_seconds=BUCKET_SECONDS,
            grace_seconds=GRACE_SECONDS,
            partitions=PARTITIONS,
            canary=self._canary,
        )
        # After a test has killed this Kafka, no other system on this machine may take its port.
        await EmbeddedKafka(self.system.folder, port=_secluded_port()).start()
        await self.system.start(options)

    async def stop(self) -> None:
        """Stop every process."""
        self.resume_supervisor()
        await self.system.stop()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[ConnectedSystem]:
        """Open what a test needs to talk to the system."""
        kafka = self.system.kafka_address()
        async with AsyncExitStack() as stack:
            router = await stack.enter_async_context(RouterClient(self.system.router_address()))
            producer = await stack.enter_async_context(Producer(kafka, client_id="test"))
            yield ConnectedSystem(self, router, producer, stack)

    def specs(self) -> dict[str, ProcessSpec]:
        """Return the supervisor's plan, by process name."""
        plan = read_plan(self.system.folder)
        assert plan is not None
        return {spec.name: spec for spec in plan.processes}

    def row(self, name: str) -> ProcessRow:
        """Return the current state of a process."""
        return next(row for row in self.system.processes() if row.name == name)

    def raw_details(self) -> dict[str, str]:
        """Return the details in the supervisor's table, without inspecting the processes."""
        table = json.loads(processes_path(self.system.folder).read_text(encoding="utf-8"))
        return {entry["name"]: entry["detail"] for entry in table["processes"]}

    def log(self, name: str) -> Path:
        """Return the log of a process."""
        return log_path(self.system.folder, name)

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a service."""
        pid = self.row(name).pid
        assert pid is not None, f"{name} does not run"
        os.kill(pid, number)

    async def until_well(self) -> None:
        """Wait until every process is ready."""

        def all_well() -> bool:
            return all(row.well for row in self.system.processes())

        await until(all_well, "every process is ready", limit_seconds=RESTART_LIMIT)

    async def kill(self, name: str) -> None:
        """Kill a service with SIGKILL, and wait until it is restarted and ready."""
        before = self.row(name)
        self.send(name, signal.SIGKILL)

        def is_back() -> bool:
            now = self.row(name)
            return now.well and now.restarts > before.restarts and now.pid != before.pid

        await until(is_back, f"{name} is restarted", limit_seconds=RESTART_LIMIT)

    @contextmanager
    def supervisor_paused(self) -> Iterator[None]:
        """Pause the supervisor: what dies stays dead, and stays in discovery."""
        supervisor = supervisor_identity(self.system.folder)
        assert supervisor is not None
        supervisor.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.resume_supervisor()

    def resume_supervisor(self) -> None:
        """Resume the supervisor; a no-op if it was not paused."""
        supervisor = supervisor_identity(self.system.folder)
        if supervisor is not None:
            supervisor.send(signal.SIGCONT)


def _secluded_port() -> int:
    """Return a free port that is neither a preferred nor an ephemeral one."""
    return next(port for port in random.sample(range(20_000, 30_000), 1_000) if is_free(port))


def _render_corpus() -> list[RenderedListing]:
    return [rendered(number, photos=2) for number in range(CORPUS)]


@dataclass
class NewDeadLetters:
    """Dead letters since this was made, by topic."""

    tails: Mapping[str, TopicTail]
    records: list[InRecord] = field(default_factory=list)

    async def look(self) -> list[InRecord]:
        """Return all of them so far."""
        for tail in self.tails.values():
            self.records += await tail.new_records()
        return self.records


class ConnectedSystem:
    """The running system with one test's connections to it."""

    def __init__(
        self,
        running: RunningSystem,
        router: RouterClient,
        producer: Producer,
        stack: AsyncExitStack,
    ) -> None:
        self.running = running
        self.system = running.system
        self.corpus = running.corpus
        self.router = router
        self.producer = producer
        self._stack = stack
        self._ledger: Ledger | None = None

    # --- in -------------------------------------------------------------------------------------

    def photo_uri(self, name: str, photo: bytes) -> str:
        """Store a photo where the downloader can read it; returns its URI."""
        path = self.system.photos / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
        return path.as_uri()

    async def publish(
        self,
        listing_id: str,
        photos: Sequence[bytes | str] = (),
        *,
        version: int = 1,
        kind: events_pb2.ListingKind.ValueType = LISTED,
        attributes: ListingAttributes | None = None,
    ) -> None:
        """Write one listing event; a photo is its bytes, or a URI as it is."""
        uris = [
            photo
            if isinstance(photo, str)
            else self.photo_uri(f"{listing_id}/{version}-{number}", photo)
            for number, photo in enumerate(photos)
        ]
        event = listing_event(
            listing_id, version, kind, photo_uris=uris, attributes=attributes or ListingAttributes()
        )
        await self.producer.send_all([record_of(event)])

    async def write(self, *records: OutRecord) -> None:
        """Write records as they are."""
        await self.producer.send_all(records)

    # --- out ------------------------------------------------------------------------------------

    async def vector_of(self, photo: bytes) -> npt.NDArray[np.float32]:
        """Return the embedder's vector of a photo, (dimensions,)."""

        async def embedded() -> list[npt.NDArray[np.float32]]:
            try:
                return [(await embed(self.system.embedder_address(), [photo]))[0]]
            except ShashinError as error:
                if not error.retryable:
                    raise
                return []

        (vector,) = await until(embedded, "the embedder answers")
        found: npt.NDArray[np.float32] = vector
        return found

    async def answer(self, **query: Any) -> search_pb2.SearchResponse | None:
        """Search once; None if there was no response in time."""
        try:
            return await self.router.search(**query)
        except ShashinError as error:
            if not error.retryable:
                raise
            return None

    async def complete_answer(self, **query: Any) -> search_pb2.SearchResponse:
        """Search until an answer is complete: a busy machine may miss a deadline."""

        async def complete() -> search_pb2.SearchResponse | None:
            answer = await self.answer(**query)
            if answer is None or answer.failed_endpoints or not answer.coverage.complete:
                return None
            return answer

        answer: search_pb2.SearchResponse = await until(
            complete, "an answer is complete", limit_seconds=RESTART_LIMIT
        )
        return answer

    async def located(self, *listing_ids: str) -> dict[str, search_pb2.Location] | None:
        """Return the locations of the listings; None if an endpoint did not respond."""
        try:
            return await self.router.locate(listing_ids)
        except ShashinError as error:
            if not error.retryable:
                raise
            return None

    async def until_versions(self, versions: Mapping[str, int | None]) -> None:
        """Wait until each listing is searchable in exactly this version; None: not searchable."""
        expected = {listing_id: v for listing_id, v in versions.items() if v is not None}

        async def so() -> bool:
            found = await self.located(*versions)
            return found is not None and expected == {
                listing_id: location.version for listing_id, location in found.items()
            }

        await until(so, f"found as {_some(versions)}", limit_seconds=RESTART_LIMIT)

    async def until_only_in(self, tier: str, *listing_ids: str) -> None:
        """Wait until only one tier holds the listings."""

        async def moved() -> bool:
            found = await self.located(*listing_ids)
            return (
                found is not None
                and found.keys() == set(listing_ids)
                and all(list(location.tiers) == [tier] for location in found.values())
            )

        await until(moved, f"{listing_ids} are in the {tier} tier only", limit_seconds=90)

    async def until_sealed(self, *listing_ids: str) -> None:
        """Wait until the live tier has released the listings."""
        await self.until_only_in(HOURLY, *listing_ids)

    async def until_balanced(self) -> Balance:
        """Wait until every event has an outcome; returns the balance."""
        last: list[Balance] = []
        if self._ledger is None:
            tails = await self.tails(LISTINGS_EVENTS, LISTINGS_HIDDEN, *DEAD_LETTER_TOPICS)
            self._ledger = Ledger(tails, self.router)
        ledger = self._ledger

        async def balanced() -> bool:
            try:
                last[:] = [await ledger.look()]
            except ShashinError as error:
                if not error.retryable:
                    raise
                return False
            return not last[0].problems

        try:
            await until(balanced, "the balance has no problem", limit_seconds=RESTART_LIMIT)
        except AssertionError as error:
            problems = last[0].problems if last else ["no response"]
            raise AssertionError(f"{error}: {problems}") from None
        return last[0]

    async def tails(self, *topics: str) -> dict[str, TopicTail]:
        """Open a tail at the beginning of each topic."""
        kafka = self.system.kafka_address()
        return await self._stack.enter_async_context(topic_tails(kafka, topics))

    async def new_dead_letters_of(self, *topics: str) -> NewDeadLetters:
        """Follow the dead letters of these topics from now on."""
        tails = await self.tails(*(topic + DEAD_LETTER_SUFFIX for topic in topics))
        for tail in tails.values():
            await tail.go_to_end()
        return NewDeadLetters(tails)


def listing_ids_of(answer: search_pb2.SearchResponse) -> list[str]:
    """Return the listings of an answer, nearest first."""
    return [hit.listing_id for hit in answer.hits]


def _some(versions: Mapping[str, int | None], at_most: int = 5) -> str:
    shown = ", ".join(f"{name} {version}" for name, version in list(versions.items())[:at_most])
    return f"{shown} …" if len(versions) > at_most else shown
