"""Hiding in a thread: whatever the event loop does meanwhile, no hidden row is missed."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.errors import DiskUnavailable
from shashin.offsets.log_position import LogPosition
from shashin.serving.hidden_listings import LogBounds, RecentlyHidden
from shashin.serving.hiding import Hiding, entry_of
from shashin.serving.hiding_thread import HidingThread
from shashin.serving.served_shards import ServedShards, Snapshot
from shashin.shards.format.manifest import Manifest
from shashin.shards.listing_index import Hashes
from shashin.shards.open_shard import OpenShard
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard
from shashin.shards.visibility import HiddenEntry
from tests.support.hidden_log import MemoryLog
from tests.support.hidden_map import HiddenMap
from tests.support.made_shards import BUCKET_START, new_row, open_shard, write
from tests.support.waiting import until

LISTINGS = ["lamp", "chair", "mug"]


class Points:
    """Points at which a thread waits until it is told to go on to the next one."""

    def __init__(self) -> None:
        self._go = threading.Semaphore(0)
        self.reached = 0
        self.over = False

    def wait(self) -> None:
        if not self.over:
            self.reached += 1
            self._go.acquire()

    async def go_on(self, task: asyncio.Future[None]) -> None:
        """Let the thread go on to its next point, or to the end of its task."""
        before = self.reached
        self._go.release()
        await self.until_beyond(before, task)

    async def until_beyond(self, before: int, task: asyncio.Future[None]) -> None:
        """Wait until the thread is at a later point, or its task is done."""
        while self.reached == before and not task.done():  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0)

    async def finish(self, task: asyncio.Future[None]) -> None:
        """Let the thread go on to the end."""
        self.over = True
        self._go.release()
        await task


class SteppedSnapshot(Snapshot):
    """A snapshot in which the hiding thread waits before it hides, and after."""

    points: Points

    def hide_all(self, entries: Sequence[HiddenEntry], hashes: Hashes | None = None) -> int:
        self.points.wait()
        hidden = super().hide_all(entries, hashes)
        self.points.wait()
        return hidden


class SteppedListings(RecentlyHidden):
    """The latest entries, and all of them for open shards; the thread waits before and after each."""

    def __init__(self, limit: int, points: Points) -> None:
        super().__init__(limit)
        self._points = points
        self.all = HiddenMap()

    def note(self, entries: Sequence[HiddenEntry], position: LogPosition) -> None:
        self._points.wait()
        for entry in entries:
            self.all.raise_to(entry.listing_id, entry.below_version)
        super().note(entries, position)
        self._points.wait()


class World:
    """A log, a thread that hides, and an event loop that swaps shards, a step at a time."""

    def __init__(self, sealed: Sequence[tuple[Manifest, Path]], limit: int) -> None:
        self._points = Points()
        self.log = MemoryLog()
        self.recent = SteppedListings(limit, self._points)
        self.served = ServedShards()
        self.thread = HidingThread(self.served, self.recent, Hiding(superseded_after_seconds=0.0))
        self._files = list(sealed)
        self._joined: list[tuple[SteppedSnapshot, SealedShard]] = []
        self._masked: list[tuple[SteppedSnapshot, SealedShard]] = []
        self._sealed: list[Shard] = []
        self._open = open_shard(hidden=self.recent.all)
        self._task: asyncio.Future[None] | None = None
        self._taken = 0
        self.below = HiddenMap()
        self._serve()

    async def open(self) -> None:
        await self.thread.open_at(self.log.bounds())

    async def step(self, what: str, listing: str, version: int) -> None:
        match what:
            case "record":
                self.log.append(listing, version)
                self.below.raise_to(listing, version)
            case "thread":
                await self._go_on()
            case "join" if self._files:
                shard = SealedShard(*self._files.pop())
                joining = self._snapshot([shard])
                self.served.join(joining)
                self._joined.append((joining, shard))
            case "mask" if self._joined:
                self._mask(*self._joined.pop())
            case "serve" if self._masked:
                joining, shard = self._masked.pop()
                self._sealed.append(shard)
                self._serve()
                self.served.leave(joining)
            case "leave" if self._masked:
                self.served.leave(self._masked.pop()[0])
            case "drop" if self._sealed:
                self._sealed.pop(0)
                self._serve()
            case "add":
                row = new_row(listing, version)
                self._open.add([row], position=self._open.position + 1, bucket_start=BUCKET_START)
            case "cut":
                self._sealed.append(self._open)
                self._open = open_shard(from_offset=self._open.position + 1, hidden=self.recent.all)
                self._serve()

    def _snapshot(self, shards: Sequence[Shard]) -> SteppedSnapshot:
        snapshot = SteppedSnapshot(shards)
        snapshot.points = self._points
        return snapshot

    def _serve(self) -> None:
        self.served.serve(self._snapshot([*self._sealed, self._open]))

    def _mask(self, joining: SteppedSnapshot, shard: SealedShard) -> None:
        """Do what ``CatchUp`` does for a shard without a snapshot of its hidden rows."""
        known = self.recent.known()
        older = [
            HiddenEntry(listing, version)
            for offset, (listing, version) in enumerate(self.log_entries())
            if offset < known.since.offset(0)
        ]
        Snapshot.hide_all(joining, [*older, *known.entries])
        self._masked.append((joining, shard))

    def log_entries(self) -> list[tuple[str, int]]:
        parsed = [entry_of(record) for record in self.log.records[0]]
        return [(p[0].listing_id, p[0].below_version) for p in parsed if p is not None]

    async def _go_on(self) -> None:
        if self._task is not None and self._task.done():
            await self._task
            self._task = None
        if self._task is not None:
            await self._points.go_on(self._task)
            return
        records = self.log.records[0][self._taken :]
        self._taken += len(records)
        before = self._points.reached
        self._task = asyncio.ensure_future(
            self.thread.apply(records, {0: self._taken, 1: 0}, delay_updates=False)
        )
        await self._points.until_beyond(before, self._task)

    async def finish(self) -> None:
        if self._task is not None:
            await self._points.finish(self._task)
        self._points.over = True
        records = self.log.records[0][self._taken :]
        read = {0: self.log.end(0), 1: 0}
        await self.thread.apply(records, read, delay_updates=False)
        while self._joined:
            await self.step("mask", "", 0)
        while self._masked:
            await self.step("serve", "", 0)

    def check(self) -> None:
        assert self.thread.applied.offset(0) == self.log.end(0)
        for shard in self.served.snapshot().shards:
            for number in range(shard.rows):
                row = shard.row(number)
                visible = any(n == number for n, _ in shard.visible_rows_of(row.listing_id))
                assert visible == self.below.visible(row.listing_id, row.version)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            # The thread has the most to do: three steps for each snapshot and entry.
            [*["thread"] * 3, "record", "join", "mask", "serve", "leave", "drop", "add", "cut"]
        ),
        st.sampled_from(LISTINGS),
        st.integers(1, 3),
    ),
    min_size=20,
    max_size=60,
)


@pytest.fixture(scope="module")
def files() -> Iterator[list[tuple[Manifest, Path]]]:
    """Three sealed shards, each with two versions of every listing."""
    with tempfile.TemporaryDirectory() as name:
        made = []
        for number in range(3):
            rows = [new_row(listing, version) for listing in LISTINGS for version in (1, 2)]
            shard = open_shard(rows, from_offset=1_000 * (number + 1))
            folder = Path(name) / str(number)
            made.append((write(shard, folder), folder))
        yield made


def test_in_any_interleaving_of_entries_joins_serves_and_leaves_everything_hidden_is_hidden(
    files: list[tuple[Manifest, Path]],
) -> None:
    @settings(deadline=None, max_examples=150)
    @given(STEPS, st.integers(0, 3))
    def interleaved(steps: list[tuple[str, str, int]], limit: int) -> None:
        async def run() -> None:
            world = World(files, limit)
            with closing(world.thread):
                await world.open()
                try:
                    for step in steps:
                        await world.step(*step)
                finally:
                    await world.finish()
                world.check()

        asyncio.run(run())

    interleaved()


class HeldListings(RecentlyHidden):
    """Recent entries that are noted once the test lets them be."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.fails = False

    def note(self, entries: Sequence[HiddenEntry], position: LogPosition) -> None:
        self.begun.set()
        self.may_go_on.wait()
        if self.fails:
            raise DiskUnavailable("the disk is full")
        super().note(entries, position)


class Held:
    """A thread that is held amid what it hides."""

    def __init__(self, shard: OpenShard) -> None:
        self.shard = shard
        self.served = ServedShards()
        self.served.serve([shard])
        self.hidden = HeldListings()
        self.log = MemoryLog()
        self.thread = HidingThread(self.served, self.hidden, Hiding(superseded_after_seconds=0.0))

    def sell(self, listings: Sequence[str]) -> asyncio.Future[None]:
        """Begin to hide what was sold."""
        records = [self.log.append(listing, 2) for listing in listings]
        read = {0: self.log.end(0), 1: 0}
        return asyncio.ensure_future(self.thread.apply(records, read, delay_updates=False))

    async def until_held(self) -> None:
        await until(self.hidden.begun.is_set, "the thread notes entries")


@asynccontextmanager
async def held(*listings: str) -> AsyncIterator[Held]:
    made = Held(open_shard([new_row(listing) for listing in listings]))
    with closing(made.thread):
        await made.thread.open_at(LogBounds("first", {0: 0, 1: 0}, {0: 0, 1: 0}))
        try:
            yield made
        finally:
            made.hidden.may_go_on.set()


async def test_the_event_loop_goes_on_while_a_large_backlog_is_hidden() -> None:
    listings = [f"listing-{number}" for number in range(5_000)]
    async with held(*listings) as process:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        selling = process.sell(listings)
        await process.until_held()
        before = turns
        await until(lambda: turns > before + 1_000, "the event loop goes on")
        assert process.shard.hidden_rows == 0
        assert process.thread.applied.offset(0) == 0, "what is not hidden is not applied"
        process.hidden.may_go_on.set()
        await selling
        counting.cancel()
        assert process.shard.hidden_rows == len(listings)
        assert process.thread.applied.offset(0) == len(listings)


async def test_a_shutdown_amid_a_batch_waits_until_all_of_it_is_hidden_and_noted() -> None:
    async with held("lamp", "mug") as process:
        selling = process.sell(["lamp", "mug"])
        await process.until_held()
        selling.cancel()
        with suppress(asyncio.CancelledError):
            await selling
        closed = asyncio.ensure_future(asyncio.to_thread(process.thread.close))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not closed.done(), "what the entries are noted in may not be closed yet"
        process.hidden.may_go_on.set()
        await closed
        assert process.shard.hidden_rows == 2
        assert process.thread.applied.offset(0) == 2
        assert len(process.hidden) == 2


async def test_what_was_cancelled_before_it_began_is_not_said_to_be_applied() -> None:
    async with held("lamp", "mug") as process:
        first = process.sell(["lamp"])
        await process.until_held()
        second = process.sell(["mug"])
        await asyncio.sleep(0)
        second.cancel()
        with suppress(asyncio.CancelledError):
            await second
        process.hidden.may_go_on.set()
        await first
        await process.thread.open_at(LogBounds("first", {0: 0, 1: 0}, {0: 2, 1: 0}))
        assert process.thread.applied.offset(0) == 1
        assert process.shard.hidden_rows == 1


async def test_entries_that_cannot_be_noted_are_hidden_and_read_again() -> None:
    async with held("lamp") as process:
        process.hidden.fails = True
        process.hidden.may_go_on.set()
        with pytest.raises(DiskUnavailable):
            await process.sell(["lamp"])
        assert process.shard.hidden_rows == 1, "what was written may be there after all"
        start = await process.thread.open_at(LogBounds("first", {0: 0, 1: 0}, {0: 1, 1: 0}))
        assert start.offset(0) == process.thread.applied.offset(0) == 0
