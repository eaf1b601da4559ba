"""Traces of the whole system, as a collector gets them, and what it costs that one is gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shashin.client.listing_events import LISTED, listing_event, record_of
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS
from shashin.local.ports import free_port
from tests.integration.conftest import StartService
from tests.support.collector import Collector, Received, collecting
from tests.support.hung_endpoints import silent_sockets
from tests.support.rendered_listings import photo_of, rendered
from tests.support.running_service import RunningService
from tests.support.running_system import RunningSystem, listing_ids_of
from tests.support.shashin_command import shashin
from tests.support.topic_records import records_of
from tests.support.traced import tracing_on
from tests.support.waiting import until

KEY = "messaging.kafka.message.key"
SECRET = "S3CRET"


@dataclass
class TracedSystem:
    """The whole system with a collector."""

    running: RunningSystem
    collector: Collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracedSystem]:
    with collecting() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHASHIN_TRACE_ENDPOINT", collector.endpoint)
        running = RunningSystem(tmp_path_factory.mktemp("traced"))
        try:
            asyncio.run(running.start_again())
            yield TracedSystem(running, collector)
        finally:
            asyncio.run(running.stop())


def of_trace(collector: Collector, span: Received) -> list[Received]:
    return [other for other in collector.spans() if other.trace_id == span.trace_id]


async def test_one_trace_goes_from_the_event_of_a_listing_until_it_is_searchable(
    traced: TracedSystem, tmp_path: Path
) -> None:
    listing, collector = rendered(900), traced.collector
    photo = tmp_path / "photos" / listing.listing_id / "0.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(listing.photos[0])
    await shashin(
        *("publish", photo.parents[1]),
        state=traced.running.system.folder,
        env={"SHASHIN_TRACE_ENDPOINT": collector.endpoint},
    )

    names = (f"publish {LISTINGS_EVENTS}", "download", "embed", "index")

    def whole() -> list[Received]:
        """Return the spans of the listing's trace, once all have come in, and those of their batches."""
        indexed = collector.spans(service="indexer", name="index")
        for index in (span for span in indexed if span.attributes.get(KEY) == listing.listing_id):
            trace = {span.name: span for span in of_trace(collector, index)}
            spans = [trace[name] for name in names if name in trace]
            received = {span.identity for span in collector.spans()}
            batches = {batch for span in spans[1:] for batch in span.links}
            if len(spans) == len(names) and batches <= received:
                return spans
        return []

    publish, download, embed, index = await until(whole, "the listing's trace comes in")
    services = [span.service for span in (publish, download, embed, index)]
    assert services == ["shashin", "downloader", "embedder", "indexer"]
    assert (publish.parent_id, publish.kind) == ("", "producer")
    for before, after in ((publish, download), (download, embed), (embed, index)):
        assert after.parent_id == before.span_id
        assert after.kind == "consumer"
        assert before.ended_ns > 0
    assert index.events == ("searchable",)
    # Each batch links to its records' traces, and is found from them.
    batches = {span.identity: span for span in collector.spans() if span.name.startswith("process")}
    for before, record in ((publish, download), (download, embed), (embed, index)):
        (batch,) = record.links
        assert before.identity in batches[batch].links
        assert batches[batch].service == record.service


async def test_a_query_is_one_trace_with_a_span_for_each_endpoint(traced: TracedSystem) -> None:
    listing, collector = rendered(901), traced.collector
    async with traced.running.connected() as system:
        await system.publish(listing.listing_id, listing.photos)
        await system.until_versions({listing.listing_id: 1})
        before = {span.trace_id for span in collector.spans(service="router")}
        answer = await system.complete_answer(photo=listing.photos[0], k=5)
    assert listing_ids_of(answer)[0] == listing.listing_id

    def queries() -> list[Received]:
        searches = collector.spans(service="router", name="shashin.v1.SearchService/Search")
        return [
            span
            for span in searches
            if span.trace_id not in before
            and len(endpoints_of(span)) == answer.endpoints
            and any(part.service == "embedder" for part in of_trace(collector, span))
        ]

    def endpoints_of(search: Received) -> set[object]:
        servers = [s for s in of_trace(collector, search) if s.kind == "server"]
        return {s.parent_id for s in servers if s.service in {"indexer", "index-server"}}

    (search, *_) = await until(queries, "a query's trace has the embedder and all endpoints")
    trace = of_trace(collector, search)
    asked = [span for span in trace if span.name.startswith("ask ")]
    assert {span.parent_id for span in asked} == {search.span_id}
    tiers = {span.attributes["shashin.tier"] for span in asked}
    assert tiers == {"live", "hourly", "daily", "monthly"}
    services = {span.service for span in trace}
    assert {"router", "embedder", "indexer", "index-server"} <= services


async def test_publishing_and_searching_go_on_while_the_collector_is_gone(
    traced: TracedSystem,
) -> None:
    listing, collector = rendered(902), traced.collector
    with collector.gone():
        async with traced.running.connected() as system:
            await system.publish(listing.listing_id, listing.photos)
            await system.until_versions({listing.listing_id: 1})
            answer = await system.complete_answer(photo=listing.photos[0], k=1)
        assert listing_ids_of(answer) == [listing.listing_id]
        assert all(row.well for row in traced.running.system.processes())
    seen = len(collector.spans())
    await until(lambda: len(collector.spans()) > seen, "spans come in again")


# --- one service ----------------------------------------------------------------------------------


async def publish(producer: Producer, listing_id: str, *uris: str) -> None:
    await producer.send_all([record_of(listing_event(listing_id, 1, LISTED, photo_uris=uris))])


async def until_downloaded(kafka: str, count: int) -> list[Any]:
    async def records() -> list[Any] | None:
        found = await records_of(kafka, IMAGES_DOWNLOADED)
        return found if len(found) >= count else None

    found: list[Any] = await until(records, f"{count} listings are downloaded")
    return found


def stored_photo(folder: Path) -> str:
    path = folder / "photo.jpg"
    path.write_bytes(photo_of(1))
    return path.as_uri()


async def test_a_record_without_a_trace_or_with_a_malformed_one_begins_a_trace(
    kafka: str, producer: Producer, start_service: StartService, tmp_path: Path
) -> None:
    uri = stored_photo(tmp_path)
    headers: dict[str, list[tuple[str, bytes | None]]] = {
        "none": [],
        "malformed": [("traceparent", b"\xff\x00 no trace")],
        "odd": [("traceparent", b"00-0-0-01"), ("tracestate", None)],
    }
    with collecting() as collector:
        await start_service(
            "downloader", trace_endpoint=collector.endpoint, photo_roots=str(tmp_path)
        )
        for name, own in headers.items():
            plain = record_of(listing_event(name, 1, LISTED, photo_uris=[uri]))
            await producer.send_all([OutRecord(plain.topic, plain.key, plain.value, own)])
        await until_downloaded(kafka, len(headers))
        await until(
            lambda: len(collector.spans(name="download")) == len(headers), "all spans come in"
        )
    spans = collector.spans(name="download")
    assert {span.attributes[KEY] for span in spans} == headers.keys()
    assert [span.parent_id for span in spans] == [""] * len(headers)
    assert len({span.trace_id for span in spans}) == len(headers)


async def test_a_dead_letter_is_found_from_its_log_line_and_its_replay_continues_its_trace(
    kafka: str, producer: Producer, start_service: StartService, tmp_path: Path
) -> None:
    uri = (tmp_path / "late.jpg").as_uri()
    with collecting() as collector:
        service: RunningService = await start_service(
            "downloader",
            trace_endpoint=collector.endpoint,
            photo_roots=str(tmp_path),
            attempts=1,
        )
        with tracing_on(collector):
            await publish(producer, "lamp", uri)
        await until(lambda: records_of(kafka, f"{LISTINGS_EVENTS}.dlq"), "it is dead-lettered")
        (tmp_path / "late.jpg").write_bytes(photo_of(1))
        replay = ("dlq", "replay", "--all-open")
        await shashin(*replay, state=tmp_path / "state", env={"SHASHIN_KAFKA": kafka})
        await until_downloaded(kafka, 1)
        await until(lambda: len(collector.spans(name="download")) == 2, "both spans come in")
    (line,) = dead_letters(service)
    first, again = sorted(collector.spans(name="download"), key=lambda span: span.began_ns)
    (published,) = collector.spans(name=f"publish {LISTINGS_EVENTS}")
    assert {name: line[name] for name in first.log_ids} == first.log_ids
    assert (line["topic"], line["offset"]) == (LISTINGS_EVENTS, 0)
    assert line["partition"] in {0, 1}
    assert (first.failed, first.attributes["error.type"]) == (True, "NoUsablePhoto")
    assert not again.failed
    assert {first.trace_id, again.trace_id} == {published.trace_id}


def dead_letters(service: RunningService) -> list[dict[str, Any]]:
    # gRPC's own core writes lines of its own about connections that are cut off.
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "dead letter"]


async def test_no_secret_is_in_logs_or_spans(
    producer: Producer,
    start_service: StartService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{SECRET}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    signed = [
        f"https://127.0.0.1/photo.jpg?X-Amz-Signature={SECRET}",
        f"https://user:{SECRET}@localhost/photo.jpg",
        f"https://localhost:{free_port()}/photo.jpg?sig={SECRET}#{SECRET}",
        f"http://localhost/photo.jpg?sig={SECRET}",
        f"file:///nowhere/photo.jpg?sig={SECRET}",
        "s3://bucket/photo.jpg",
    ]
    with collecting() as collector:
        service: RunningService = await start_service(
            "downloader",
            trace_endpoint=collector.endpoint,
            log_level="debug",
            photo_hosts="localhost",
            photo_buckets="s3://bucket",
            attempts=1,
        )
        for number, uri in enumerate(signed):
            await publish(producer, f"listing-{number}", uri)
        await until(lambda: len(dead_letters(service)) == len(signed), "all are dead-lettered")
        assert await service.stop() == 0
    assert len(collector.spans(name="download")) == len(signed)
    assert all(headers["authorization"] == f"Bearer {SECRET}" for headers in collector.headers)
    assert SECRET not in service.log()
    assert SECRET not in collector.text()
    assert "photo.jpg?REDACTED" in service.log(), "the rest of an address is there"


@pytest.mark.parametrize("gone", ["refuses", "hangs"])
async def test_publishing_and_the_end_of_a_service_do_not_wait_for_a_collector_that_is_gone(
    kafka: str, producer: Producer, start_service: StartService, tmp_path: Path, gone: str
) -> None:
    uri = stored_photo(tmp_path)
    async with silent_sockets(1) as (silent,):
        address = silent.address if gone == "hangs" else f"127.0.0.1:{free_port()}"
        service: RunningService = await start_service(
            "downloader", trace_endpoint=f"http://{address}", photo_roots=str(tmp_path)
        )
        for number in range(20):
            await publish(producer, f"listing-{number}", uri)
        await until_downloaded(kafka, 20)

        async def counted() -> bool:
            return await service.metric("shashin_trace_dropped_spans_total") > 0

        await until(counted, "spans are dropped and counted")
        assert await service.get("healthz") is not None, "nothing is wrong with the service"
        assert await service.stop() == 0
        assert '"event": "drained"' in service.log()
