"""Search by photo with the embedders in discovery."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from prometheus_client import REGISTRY

from shashin.local.ports import free_port
from shashin.serving import replica_choice
from shashin.v1 import search_pb2
from tests.support.running_router import (
    DIMENSIONS,
    MODEL,
    FakeEmbedder,
    Listing,
    System,
    hits,
    shard_of,
    vector_of,
)

PHOTO = (3.0 * vector_of("lamp")).astype("<f4").tobytes()
"""A photo that the fake embedder turns into the lamp's vector, not of unit length."""


async def search(system: System, photo: bytes = PHOTO) -> search_pb2.SearchResponse:
    return await system.search(photo=photo, k=1)


async def refusal(system: System, photo: bytes = PHOTO) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await search(system, photo)
    return refused.value.code(), refused.value.details() or ""


@pytest.fixture
async def indexed(system: System) -> System:
    await system.index("indexer", "live", shard_of([Listing("lamp"), Listing("mug")]))
    await system.until_described()
    return system


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give no embedder up as unresponsive, however slow the machine: the test counts calls."""
    monkeypatch.setattr(replica_choice, "_UNRESPONSIVE_SECONDS", 60.0)


async def until_read(system: System) -> None:
    """Wait until discovery has been read again, by adding an index endpoint."""
    number = len(system.endpoints)
    await system.index(f"last-{number}", "hourly", shard_of([]))
    await system.until_described()


async def test_a_photo_finds_the_listing_with_its_vector(indexed: System) -> None:
    await indexed.embedder("embedder", FakeEmbedder())
    await until_read(indexed)
    answer = await search(indexed)
    assert hits(answer) == [("lamp", 1, 0)]
    assert answer.hits[0].score == pytest.approx(1.0, abs=0.01), "the query has unit length"
    assert answer.timings.embed > 0


@pytest.mark.usefixtures("patient")
async def test_embedders_share_the_load(indexed: System) -> None:
    embedders = [FakeEmbedder(), FakeEmbedder()]
    for number, embedder in enumerate(embedders):
        await indexed.embedder(f"embedder-{number}", embedder)
    await until_read(indexed)
    for _ in range(6):
        await search(indexed)
    assert [embedder.calls for embedder in embedders] == [3, 3]


async def test_a_failing_embedder_is_skipped(indexed: System) -> None:
    overloaded = FakeEmbedder(refusal=(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many photos"))
    await indexed.embedder("overloaded", overloaded)
    dead = await indexed.embedder("dead", FakeEmbedder())
    await indexed.embedder("healthy", FakeEmbedder())
    await until_read(indexed)
    await dead.stop()
    for _ in range(3):
        assert hits(await search(indexed)) == [("lamp", 1, 0)]
    assert overloaded.calls > 0, "it was called"


async def test_an_embedder_that_does_not_respond_costs_no_query(indexed: System) -> None:
    hanging, healthy = FakeEmbedder(hangs=True), FakeEmbedder()
    await indexed.embedder("hanging", hanging)
    await indexed.embedder("healthy", healthy)
    await until_read(indexed)
    calls = healthy.calls
    for _ in range(4):
        assert hits(await search(indexed)) == [("lamp", 1, 0)]
    assert hanging.calls > 0, "it was called"
    assert healthy.calls == calls + 4


async def test_if_every_embedder_is_overloaded_the_caller_is_told_to_retry(
    indexed: System,
) -> None:
    refusing = (grpc.StatusCode.RESOURCE_EXHAUSTED, "EmbedderOverloaded: 256 query photos wait")
    for number in range(2):
        await indexed.embedder(f"embedder-{number}", FakeEmbedder(refusal=refusing))
    await until_read(indexed)
    code, details = await refusal(indexed)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details.startswith("EmbedderOverloaded: every embedder is overloaded")
    assert "256 query photos wait" in details


async def test_without_an_embedder_only_search_by_photo_fails(indexed: System) -> None:
    code, details = await refusal(indexed)
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "no embedder is known" in details
    assert not indexed.health.readiness_problems()
    assert hits(await indexed.search(vector_of("lamp"), k=1)) == [("lamp", 1, 0)]


async def test_if_no_embedder_responds_the_error_lists_each(indexed: System) -> None:
    address = f"127.0.0.1:{free_port()}"
    indexed.announce({"name": "dead", "role": "embedder", "tier": "", "address": address})
    indexed.endpoints[0].name = "renamed"
    indexed.announce({"name": "dead", "role": "embedder", "tier": "", "address": address})
    await indexed.until_described()
    code, details = await refusal(indexed)
    assert code == grpc.StatusCode.UNAVAILABLE
    assert f"dead at {address}: UNAVAILABLE" in details


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ("PhotoUndecodable: it is cut short", "PhotoUndecodable: it is cut short"),
        ("PhotoTooLarge: 60 megapixels", "PhotoTooLarge: 60 megapixels"),
        ("something else", "InvalidQuery: something else"),
    ],
)
async def test_photo_errors_of_the_embedder_reach_the_caller(
    indexed: System, details: str, expected: str
) -> None:
    refusing = (grpc.StatusCode.INVALID_ARGUMENT, details)
    embedders = [FakeEmbedder(refusal=refusing), FakeEmbedder(refusal=refusing)]
    for number, embedder in enumerate(embedders):
        await indexed.embedder(f"embedder-{number}", embedder)
    await until_read(indexed)
    assert await refusal(indexed) == (grpc.StatusCode.INVALID_ARGUMENT, expected)
    assert sum(embedder.calls for embedder in embedders) == 1, "no other embedder is called"


async def test_an_empty_photo_is_rejected(indexed: System) -> None:
    code, details = await refusal(indexed, b"")
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("PhotoEmpty")


async def test_an_embedder_of_another_model_is_an_error_that_names_both(indexed: System) -> None:
    await indexed.embedder("embedder", FakeEmbedder(model_id="other-model"))
    await until_read(indexed)
    code, details = await refusal(indexed)
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "'other-model'" in details
    assert "'test-model'" in details


@pytest.mark.usefixtures("patient")
async def test_an_embedder_of_another_model_is_tried_last(indexed: System) -> None:
    wrong, right = FakeEmbedder(model_id="other-model"), FakeEmbedder()
    await indexed.embedder("a-wrong", wrong)
    await indexed.embedder("b-right", right)
    await until_read(indexed)
    for _ in range(6):
        assert hits(await search(indexed)) == [("lamp", 1, 0)]
    assert right.calls == 6
    assert wrong.calls == 1


async def test_an_embedder_announced_with_another_model_is_never_called(
    indexed: System,
) -> None:
    wrong, right = FakeEmbedder(model_id="other-model"), FakeEmbedder()
    await indexed.embedder("a-wrong", wrong, announced_model="other-model")
    await indexed.embedder("b-right", right, announced_model=MODEL)
    await until_read(indexed)
    for _ in range(3):
        assert hits(await search(indexed)) == [("lamp", 1, 0)]
    assert (right.calls, wrong.calls) == (3, 0)


async def test_with_only_announced_embedders_of_other_models_the_error_lists_them(
    indexed: System,
) -> None:
    wrong = FakeEmbedder(model_id="other-model")
    other = await indexed.embedder("embedder", wrong, announced_model="other-model")
    await until_read(indexed)
    code, details = await refusal(indexed)
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert f"embedder at {other.address} (it holds model 'other-model')" in details
    assert "the router searches model 'test-model'" in details
    assert wrong.calls == 0


async def test_a_response_of_another_model_is_not_a_failed_call(indexed: System) -> None:
    await indexed.embedder("wrong", FakeEmbedder(model_id="other-model"))
    await indexed.embedder("dead-wrong", FakeEmbedder(), announced_model="other-model")
    await until_read(indexed)
    before = failed_embeds()
    await refusal(indexed)
    assert failed_embeds() == before
    await indexed.embedder("odd", FakeEmbedder())
    await until_read(indexed)
    await refusal(indexed, np.zeros(DIMENSIONS, dtype="<f4").tobytes())
    assert failed_embeds() == before + 1, "an unusable vector is a failed call"


def failed_embeds() -> float:
    """Return the failed calls to embedders of all statuses, by the metric."""
    (family,) = (m for m in REGISTRY.collect() if m.name == "shashin_router_failed_embeds")
    return sum(s.value for s in family.samples if s.name.endswith("_total"))


async def test_a_vector_of_other_dimensions_is_an_error(indexed: System) -> None:
    await indexed.embedder("embedder", FakeEmbedder())
    await until_read(indexed)
    code, details = await refusal(indexed, np.ones(8, dtype="<f4").tobytes())
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "8 dimensions" in details


async def test_slow_embedding_exceeds_the_deadline(indexed: System) -> None:
    late = (grpc.StatusCode.DEADLINE_EXCEEDED, "the batch did not start in time")
    await indexed.embedder("embedder", FakeEmbedder(refusal=late))
    await until_read(indexed)
    code, details = await refusal(indexed)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "embedder at 127.0.0.1" in details
