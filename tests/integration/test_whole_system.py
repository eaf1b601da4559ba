"""The whole system as real processes on a real Kafka: search, hiding, sealing, crashes, balance."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import pytest

from shashin.client.listing_events import REMOVED, SOLD, UPDATED, ListingAttributes
from shashin.errors import UserError
from shashin.local.plan import INDEXER
from shashin.tiers import HOURLY, LIVE
from shashin.v1 import index_pb2, search_pb2
from shashin.workload.bad_input import bad_records
from tests.support.metric_pages import unknown_metrics
from tests.support.rendered_listings import RenderedListing, photo_of
from tests.support.running_system import (
    CORPUS,
    PARTITIONS,
    RESTART_LIMIT,
    SERVICES,
    ConnectedSystem,
    RunningSystem,
    listing_ids_of,
)
from tests.support.waiting import until

INDEX_SERVER = "index-server-hourly"

Vector = npt.NDArray[np.float32]


# --- searching ----------------------------------------------------------------------------------


async def test_a_photo_that_was_never_published_finds_its_listing(system: ConnectedSystem) -> None:
    ranks = []
    for listing in system.corpus:
        answer = await system.complete_answer(photo=listing.unseen, k=10)
        found = listing_ids_of(answer)
        assert len(found) == len(set(found)) == 10
        ranks.append(found.index(listing.listing_id) if listing.listing_id in found else None)
    assert sum(rank is not None for rank in ranks) >= 0.95 * CORPUS
    assert sum(rank == 0 for rank in ranks) >= 0.75 * CORPUS


async def test_a_vector_finds_the_very_photo_that_it_was_made_of(system: ConnectedSystem) -> None:
    listing = system.corpus[3]
    vector = await system.vector_of(listing.photos[1])
    first = (await system.complete_answer(vector=vector)).hits[0]
    assert (first.listing_id, first.version, first.photo_number) == (listing.listing_id, 1, 1)
    assert first.score > 0.95
    assert first.attributes.category == listing.attributes.category
    assert first.attributes.price_minor == listing.attributes.price_minor


async def test_a_vector_of_another_length_is_refused_with_the_length_wanted(
    system: ConnectedSystem,
) -> None:
    with pytest.raises(UserError, match=r"256 bytes.*128 dimensions"):
        await system.router.search(vector=np.ones(64, dtype=np.float32))


async def test_a_search_by_listing_finds_others_and_leaves_itself_out(
    system: ConnectedSystem,
) -> None:
    listing = system.corpus[5]
    answer = await system.complete_answer(listing_id=listing.listing_id, k=10)
    assert len(answer.hits) == 10
    assert listing.listing_id not in listing_ids_of(answer)
    # What is nearest to its first photo, beside itself, is near to the listing, too.
    vector = await system.vector_of(listing.photos[0])
    by_photo = listing_ids_of(await system.complete_answer(vector=vector, k=2))
    assert by_photo[0] == listing.listing_id
    assert by_photo[1] in listing_ids_of(answer)


async def test_a_search_by_an_unknown_listing_is_rejected(system: ConnectedSystem) -> None:
    with pytest.raises(UserError, match="'no-such-listing' is not searchable"):
        await system.router.search(listing_id="no-such-listing")


FILTERS: dict[str, tuple[index_pb2.Filter, Callable[[ListingAttributes], bool]]] = {
    "category": (
        index_pb2.Filter(categories=["sneaker", "mug", "lamp"]),
        lambda a: a.category in {"sneaker", "mug", "lamp"},
    ),
    "currency": (
        index_pb2.Filter(prices=[index_pb2.PriceRange(currency="EUR")]),
        lambda a: a.currency == "EUR",
    ),
    "price in a currency": (
        index_pb2.Filter(prices=[index_pb2.PriceRange(currency="JPY", max_minor=15_000)]),
        lambda a: a.price_minor <= 15_000 and a.currency == "JPY",
    ),
    "prices of two currencies": (
        index_pb2.Filter(
            prices=[
                index_pb2.PriceRange(currency="JPY", min_minor=5_000, max_minor=15_000),
                index_pb2.PriceRange(currency="EUR"),
            ]
        ),
        lambda a: a.currency == "EUR" or (a.currency == "JPY" and 5_000 <= a.price_minor <= 15_000),
    ),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_a_filter_leaves_exactly_the_listings_that_it_names(
    system: ConnectedSystem, name: str
) -> None:
    row_filter, fits = FILTERS[name]
    wanted = {li.listing_id for li in system.corpus if fits(li.attributes)}
    assert 0 < len(wanted) < CORPUS
    answer = await system.complete_answer(
        photo=system.corpus[0].unseen, k=500, row_filter=row_filter
    )
    for hit in answer.hits:
        found = hit.attributes
        assert fits(
            ListingAttributes(found.category, found.brand, found.price_minor, found.currency)
        )
    of_corpus = {listing.listing_id for listing in system.corpus}
    assert set(listing_ids_of(answer)) & of_corpus == wanted


# --- the life of a listing ----------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["sold", "removed"])
async def test_what_is_sold_or_removed_is_gone_from_the_live_and_from_the_sealed_tier(
    system: ConnectedSystem, ending: str
) -> None:
    kind = SOLD if ending == "sold" else REMOVED
    sealed, live, staying = (f"{ending}-{tier}" for tier in (HOURLY, LIVE, "not"))
    photo = photo_of(100 + kind)
    await system.publish(sealed, [photo])
    await system.publish(staying, [photo])
    await system.until_sealed(sealed, staying)
    await system.publish(live, [photo])
    await system.until_versions({live: 1})
    vector = await system.vector_of(photo)
    found = listing_ids_of(await system.complete_answer(vector=vector))
    assert {sealed, live, staying} == set(found[:3])

    await system.publish(sealed, version=2, kind=kind)
    await system.publish(live, version=2, kind=kind)
    await system.until_versions({sealed: None, live: None, staying: 1})
    found = listing_ids_of(await system.complete_answer(vector=vector, k=500))
    assert found[0] == staying
    assert not {sealed, live} & set(found)

    await system.publish(sealed, [photo], version=3)
    await system.until_versions({sealed: 3, live: None, staying: 1})
    answer = await system.complete_answer(vector=vector)
    assert {(hit.listing_id, hit.version) for hit in answer.hits[:2]} == {(sealed, 3), (staying, 1)}
    await system.until_balanced()


async def test_an_update_replaces_the_listing_and_at_no_moment_it_is_missing(
    system: ConnectedSystem,
) -> None:
    old, new = photo_of(110), photo_of(111)
    await system.publish("updated", [old], attributes=ListingAttributes(category="before"))
    await system.until_versions({"updated": 1})
    vector = await system.vector_of(old)
    await system.publish(
        "updated",
        [new, old],
        version=2,
        kind=UPDATED,
        attributes=ListingAttributes(category="after"),
    )

    async def replaced() -> bool:
        answer = await system.complete_answer(vector=vector)
        first = answer.hits[0]
        assert first.listing_id == "updated"
        return first.version == 2

    await until(replaced, "version 2 is found")
    answer = await system.complete_answer(vector=vector, k=500)
    (hit,) = [hit for hit in answer.hits if hit.listing_id == "updated"]
    assert (hit.photo_number, hit.attributes.category) == (1, "after")
    only_before = index_pb2.Filter(categories=["before"])

    async def old_is_hidden() -> bool:
        # The new version is searchable a moment before the old one is said to be hidden.
        found = await system.complete_answer(vector=vector, row_filter=only_before)
        return not found.hits

    await until(old_is_hidden, "no filter brings version 1 back")
    await system.until_balanced()


async def test_an_update_of_which_no_photo_can_be_used_changes_nothing(
    system: ConnectedSystem,
) -> None:
    photo = photo_of(112)
    await system.publish("kept", [photo])
    await system.until_versions({"kept": 1})
    await system.publish("kept", [b"no photo at all"], version=2, kind=UPDATED)
    await system.publish("after-kept", [photo])
    await system.until_versions({"kept": 1, "after-kept": 1})
    await system.until_balanced()


# --- tiers --------------------------------------------------------------------------------------


async def test_listings_move_into_the_sealed_tier_and_are_found_all_the_while(
    system: ConnectedSystem,
) -> None:
    photos = {f"moving-{number}": photo_of(120 + number) for number in range(6)}
    for listing_id, photo in photos.items():
        await system.publish(listing_id, [photo])
    vectors = {name: await system.vector_of(photo) for name, photo in photos.items()}
    await system.until_versions(dict.fromkeys(photos, 1))
    tiers_seen: set[str] = set()

    async def moved() -> bool:
        tiers = set()
        for listing_id, vector in vectors.items():
            first = (await system.complete_answer(vector=vector)).hits[0]
            assert first.listing_id == listing_id
            tiers.add(first.tier)
        tiers_seen.update(tiers)
        return tiers == {HOURLY}

    await until(moved, "the hourly tier serves all of them")
    await system.until_sealed(*photos)
    assert tiers_seen == {LIVE, HOURLY}

    async def live_tier_is_empty() -> bool:
        status = await system.router.status()
        return all(e.rows == 0 for e in status.endpoints if e.tier == LIVE)

    await until(live_tier_is_empty, "the live tier has released everything")
    await moved()
    assert (await system.router.status()).coverage.complete


# --- nothing is dropped silently ----------------------------------------------------------------


async def test_every_event_of_a_stream_with_bad_ones_is_searchable_hidden_or_a_dead_letter(
    system: ConnectedSystem,
) -> None:
    before = await system.until_balanced()
    photo = system.system.photos / "tests" / "balance.jpg"
    photo.parent.mkdir(parents=True, exist_ok=True)
    photo.write_bytes(photo_of(130))
    bad = bad_records(18, system.system.photos / "bad", photo)
    for number in range(12):
        await system.publish(f"balance-{number}", [photo_of(131), photo_of(132)])
        await system.write(bad[number])
    for number in range(3):
        await system.publish(f"balance-{number}", [photo_of(133)], version=2, kind=UPDATED)
        await system.publish(f"balance-{number + 3}", version=2, kind=SOLD)
    await system.write(*bad[12:])
    versions = {f"balance-{n}": 2 if n < 3 else None if n < 6 else 1 for n in range(12)}
    await system.until_versions(versions)
    after = await system.until_balanced()
    assert after.events_in - before.events_in == 12 + 18 + 6
    # Of every nine bad ones, one loses two photos of three and is searchable all the same.
    assert after.searchable - before.searchable == 9 + 2
    assert after.hidden - before.hidden == 3 + 6
    assert after.dead_lettered - before.dead_lettered == 16
    assert after.photos_dead_lettered - before.photos_dead_lettered == 4
    assert " = " in after.line


# --- crashes ------------------------------------------------------------------------------------


@dataclass
class Watch:
    """Searches continuously for a listing on sale and for a sold one."""

    system: ConnectedSystem
    on_sale: RenderedListing
    sold: str
    vector: Vector
    """Near to both."""
    complete: int = 0
    """Number of complete answers."""

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch while the context is open; a wrong answer raises at the end."""
        done = asyncio.Event()
        watching = asyncio.ensure_future(self._watch(done))
        try:
            yield
        finally:
            done.set()
            await watching

    async def _watch(self, done: asyncio.Event) -> None:
        while not done.is_set():
            answer = await self.system.answer(vector=self.vector)
            if answer is not None:
                self._check(answer)
            await asyncio.sleep(0.02)  # leaves CPU time to the system

    def _check(self, answer: search_pb2.SearchResponse) -> None:
        found = listing_ids_of(answer)
        assert self.sold not in found, "a sold listing came back"
        if answer.coverage.complete:
            self.complete += 1
            assert self.on_sale.listing_id in found, "an answer without it says that it is complete"
        else:
            assert answer.coverage.missing or answer.coverage.unknown_partitions


class Stream:
    """A continuous stream of listings, updates and sales."""

    def __init__(self, system: ConnectedSystem) -> None:
        self._system = system
        self._photos = [photo_of(140 + number) for number in range(20)]
        self.expected: dict[str, int | None] = {}

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Send events while the context is open."""
        done = asyncio.Event()
        flowing = asyncio.ensure_future(self._flow(done))
        try:
            yield
        finally:
            done.set()
            await flowing

    async def _flow(self, done: asyncio.Event) -> None:
        for number in itertools.count():
            await self._send(number)
            if done.is_set():
                return
            await asyncio.sleep(0.2)  # the rate of the stream

    async def _send(self, number: int) -> None:
        name, photo = f"stream-{number}", self._photos[number % len(self._photos)]
        await self._system.publish(name, [photo])
        self.expected[name] = 1
        if number % 4 == 2:
            await self._system.publish(f"stream-{number - 2}", [photo], version=2, kind=UPDATED)
            self.expected[f"stream-{number - 2}"] = 2
        if number % 4 == 3:
            await self._system.publish(f"stream-{number - 2}", version=2, kind=SOLD)
            self.expected[f"stream-{number - 2}"] = None

    def photo_of(self, number: int) -> bytes:
        """Return the photo of the listing's first version."""
        return self._photos[number % len(self._photos)]


async def test_services_that_are_killed_one_after_the_other_lose_nothing_and_show_nothing_sold(
    system: ConnectedSystem,
) -> None:
    on_sale = system.corpus[7]
    await system.publish("sold-before-the-crashes", [on_sale.photos[0]])
    await system.until_versions({"sold-before-the-crashes": 1})
    await system.publish("sold-before-the-crashes", version=2, kind=SOLD)
    await system.until_versions({"sold-before-the-crashes": None, on_sale.listing_id: 1})
    vector = await system.vector_of(on_sale.photos[0])
    watch = Watch(system, on_sale, "sold-before-the-crashes", vector)
    stream = Stream(system)
    async with watch.watching(), stream.flowing():
        for name in SERVICES:
            await system.running.kill(name)
    assert watch.complete
    await system.until_versions(stream.expected)
    for number in (0, 1, 3):  # updated, sold, untouched
        name = f"stream-{number}"
        vector = await system.vector_of(stream.photo_of(number))
        answer = await system.complete_answer(vector=vector, k=500)
        versions = [hit.version for hit in answer.hits if hit.listing_id == name]
        assert versions == ([] if (version := stream.expected[name]) is None else [version])
    await system.until_balanced()
    assert (await system.router.status()).coverage.complete


@pytest.mark.parametrize("name", [INDEX_SERVER, INDEXER])
async def test_an_answer_that_a_dead_endpoint_has_no_part_in_names_it_and_is_not_complete(
    system: ConnectedSystem, name: str
) -> None:
    listing = system.corpus[9]
    await system.until_sealed(listing.listing_id)
    vector = await system.vector_of(listing.photos[0])
    await system.complete_answer(vector=vector)
    with system.running.supervisor_paused():
        system.running.send(name, signal.SIGKILL)

        async def partial() -> search_pb2.SearchResponse | None:
            answer = await system.answer(vector=vector)
            if answer is None or [failed.name for failed in answer.failed_endpoints] != [name]:
                return None
            return answer

        answer = await until(partial, "an answer comes from the other endpoint alone")
    assert not answer.coverage.complete
    assert answer.failed_endpoints[0].error.startswith("UNAVAILABLE")
    if name == INDEX_SERVER:
        assert listing.listing_id not in listing_ids_of(answer)
        assert {r.partition for r in answer.coverage.missing} <= set(range(PARTITIONS))
        assert all(r.from_offset < r.to_offset for r in answer.coverage.missing)
        assert answer.coverage.missing
    else:
        # What is sealed is still found; how far the log goes, only the live tier can say.
        assert listing_ids_of(answer)[0] == listing.listing_id
        assert list(answer.coverage.unknown_partitions) == list(range(PARTITIONS))
    await system.running.until_well()
    healed = await system.complete_answer(vector=vector)
    assert listing_ids_of(healed)[0] == listing.listing_id


async def test_killed_kafka_is_restarted_and_searches_continue_meanwhile(
    system: ConnectedSystem,
) -> None:
    listing, photo = system.corpus[11], photo_of(160)
    await system.publish("before-the-crash-of-kafka", [photo])
    vector = await system.vector_of(listing.photos[0])
    before = system.running.row("kafka")
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    answer = await system.complete_answer(vector=vector)
    assert listing_ids_of(answer)[0] == listing.listing_id

    def is_back() -> bool:
        now = system.running.row("kafka")
        return now.well and now.pid not in {None, before.pid}

    await until(is_back, "kafka is started again", limit_seconds=RESTART_LIMIT)
    async with system.running.connected() as again:
        await again.publish("after-the-crash-of-kafka", [photo])
        await again.until_versions({"before-the-crash-of-kafka": 1, "after-the-crash-of-kafka": 1})
        await again.until_balanced()


# --- processes ----------------------------------------------------------------------------------


COUNTED = {
    "downloader": "shashin_downloader_photos_total",
    "embedder": "shashin_embedder_photos_total",
    INDEXER: "shashin_indexer_rows_total",
    INDEX_SERVER: "shashin_index_server_swaps_total",
    # They serve nothing yet, and are searched all the same.
    "index-server-daily": "shashin_index_search_seconds_count",
    "index-server-monthly": "shashin_index_search_seconds_count",
    "image-builder": "shashin_image_builder_rollouts_total",
    "router": "shashin_router_search_seconds_count",
}
"""What each service must have counted once a listing was sealed and searched."""

STAGES = {"downloader": "downloaded", "embedder": "embedded", INDEXER: "searchable"}
"""What a listing is when a service has done its part."""


async def test_every_service_answers_its_probes_and_counts_what_it_does(
    system: ConnectedSystem,
) -> None:
    photo = photo_of(170)
    await system.publish("counted", [photo])
    await system.until_sealed("counted")
    await system.complete_answer(photo=photo)
    for name, spec in system.running.specs().items():
        async with aiohttp.ClientSession(f"http://{spec.addresses['http']}/") as session:
            for path in ("livez", "readyz"):
                async with session.get(path) as response:
                    assert (response.status, await response.text()) == (200, "ok\n"), (name, path)
            async with session.get("metrics") as response:
                assert (response.status, response.content_type) == (200, "text/plain")
                page = await response.text()
        service = spec.argv[-1].rpartition(".")[2].replace("_", "-")
        samples = [line for line in page.splitlines() if not line.startswith("#")]
        assert f'shashin_service_info{{service="{service}"}} 1.0' in samples
        counted = [line for line in samples if line.startswith(COUNTED[name])]
        assert sum(float(line.rpartition(" ")[2]) for line in counted) > 0, name
        assert unknown_metrics(page) == set(), name
        if (stage := STAGES.get(name)) is not None:
            since_event = f'shashin_pipeline_since_event_seconds_count{{stage="{stage}"}} '
            (line,) = (line for line in samples if line.startswith(since_event))
            assert float(line.removeprefix(since_event)) > 0


async def test_every_line_of_every_log_is_json_that_names_service_level_and_time(
    system: ConnectedSystem,
) -> None:
    for name in SERVICES:
        lines = _log_lines(system.running, name)
        assert lines
        for line in lines:
            assert line.keys() >= {"event", "level", "timestamp"}, line
        assert "started" in {line["event"] for line in lines}


async def test_every_service_that_is_asked_to_end_drains_and_exits_with_0(
    system: ConnectedSystem,
) -> None:
    running = system.running
    before = {name: running.row(name) for name in SERVICES}
    logged = {name: len(_log_lines(running, name)) for name in SERVICES}
    await system.publish("while-draining", [photo_of(161)])
    for name in SERVICES:
        running.send(name, signal.SIGTERM)
    said: set[tuple[str, str]] = set()

    def are_back() -> bool:
        said.update(
            (name, detail.partition(";")[0])
            for name, detail in running.raw_details().items()
            if "exited with code" in detail
        )
        rows = {row.name: row for row in running.system.processes()}
        return all(
            rows[name].well and rows[name].restarts > before[name].restarts for name in SERVICES
        )

    await until(are_back, "every service is started again", limit_seconds=RESTART_LIMIT)
    for name in SERVICES:
        events = [line["event"] for line in _log_lines(running, name)[logged[name] :]]
        # The last line of a service that exits with 0.
        assert events.count("drained") == 1, (name, events)
        assert events.index("drained") < events.index("started")
        assert "cancelled work that did not drain" not in events
    # The supervisor shows it only until it restarts the service.
    assert {detail for _, detail in said} <= {"it exited with code 0"}
    await system.until_versions({"while-draining": 1})
    await system.until_balanced()


def _log_lines(running: RunningSystem, name: str) -> list[dict[str, Any]]:
    text = running.log(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
