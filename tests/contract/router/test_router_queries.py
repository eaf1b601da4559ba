"""What a query may ask of SearchService.Search, over real endpoints with rows in several tiers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import REGISTRY

from services.router.costs import cost_of_search
from shashin.v1 import search_pb2
from tests.support.hidden_log import hide
from tests.support.running_router import (
    DIMENSIONS,
    FakeEmbedder,
    Listing,
    System,
    Vector,
    hits,
    shard_of,
    unit,
    vector_of,
)
from tests.support.waiting import until

OLD = [Listing(f"old-{i:02d}", photos=1 + i % 4) for i in range(30)]
NEW = [Listing(f"new-{i:02d}", photos=1 + i % 3) for i in range(20)]


@pytest.fixture
async def indexed(system: System) -> System:
    await system.index("hourly", "hourly", shard_of(OLD))
    await system.index("indexer", "live", shard_of(NEW, from_offset=len(OLD)))
    await system.until_described()
    return system


def packed(vector: Vector) -> bytes:
    return vector.astype("<f4").tobytes()


def by_vector(vector: Vector, weight: float | None = None) -> search_pb2.QueryPart:
    return search_pb2.QueryPart(vector=packed(vector), weight=weight)


def photos_by_score(query: Vector, listings: Sequence[Listing]) -> list[tuple[str, int, float]]:
    """Return every photo with its score, nearest first."""
    photos = [
        (listing.listing_id, number, float(row.vector.astype(np.float16).astype("f4") @ query))
        for listing in listings
        for number, row in enumerate(listing.rows())
    ]
    return sorted(photos, key=lambda photo: -photo[2])


async def refusal(system: System, **fields: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await system.search(**fields)
    return refused.value.code(), refused.value.details() or ""


async def test_parts_are_searched_for_by_their_weighted_sum(indexed: System) -> None:
    one, other = vector_of("old-03", photo=2), vector_of("new-04")
    for weights in ((1.0, 1.0), (2.5, 0.5), (1.0, -0.75)):
        # Their own lengths do not matter.
        parts = [by_vector(3 * one, weights[0]), by_vector(other, weights[1])]
        expected = await indexed.search(unit(weights[0] * one + weights[1] * other), k=50)
        answer = await indexed.search(parts=parts, k=50)
        assert hits(answer) == hits(expected)
        assert [h.score for h in answer.hits] == pytest.approx(
            [h.score for h in expected.hits], abs=1e-6
        )


async def test_a_part_without_a_weight_counts_once(indexed: System) -> None:
    one, other = vector_of("old-03"), vector_of("new-04")
    answer = await indexed.search(parts=[by_vector(one), by_vector(other, 1.0)])
    assert hits(answer) == hits(await indexed.search(unit(one + other)))


async def test_a_listing_among_parts_is_the_mean_of_its_photos_and_no_hit(indexed: System) -> None:
    (listing,) = [one for one in OLD if one.listing_id == "old-07"]
    mean = unit(sum(row.vector for row in listing.rows()))
    other = vector_of("new-04")
    parts = [search_pb2.QueryPart(listing_id="old-07"), by_vector(other)]
    answer = await indexed.search(parts=parts, k=49)
    expected = await indexed.search(unit(mean + other), k=50)
    assert hits(answer) == [hit for hit in hits(expected) if hit[0] != "old-07"]
    assert len(answer.hits) == 49


async def test_photos_among_parts_are_embedded_with_their_crops(indexed: System) -> None:
    embedder = FakeEmbedder()
    await indexed.embedder("embedder", embedder)
    await indexed.index("last", "hourly", shard_of([]))
    await indexed.until_described()
    one, other = vector_of("old-03"), vector_of("new-04")
    crop = search_pb2.CropBox(left=0.25, top=0.0, right=0.75, bottom=0.5)
    parts = [
        search_pb2.QueryPart(photo=packed(one)),
        search_pb2.QueryPart(photo=packed(other), crop=crop, weight=-0.5),
    ]
    answer = await indexed.search(parts=parts, k=5)
    assert hits(answer) == hits(await indexed.search(unit(one - 0.5 * other), k=5))
    assert sorted(embedder.boxes) == [[], [(0.25, 0.0, 0.75, 0.5)]]
    await indexed.search(photo=packed(one), crop=crop)
    assert embedder.boxes[2] == [(0.25, 0.0, 0.75, 0.5)]


@pytest.mark.parametrize("each_photo", [False, True])
async def test_a_photo_finds_what_its_zoomed_views_are_nearest_to(
    indexed: System, each_photo: bool
) -> None:
    views = [vector_of(one, photo=n) for one, n in (("old-03", 0), ("new-04", 1), ("old-07", 3))]
    whole, *zoomed = views
    embedder = FakeEmbedder(zoomed=zoomed)
    await indexed.embedder("embedder", embedder)
    await indexed.index("last", "hourly", shard_of([]))
    await indexed.until_described()
    answer = await indexed.search(photo=packed(whole), k=12, each_photo=each_photo)
    best: dict[tuple[str, int], float] = {}
    for view in views:
        for listing_id, number, score in photos_by_score(view, [*OLD, *NEW]):
            key = (listing_id, number if each_photo else 0)
            best[key] = max(score, best.get(key, -1.0))
    expected = sorted(best.values(), reverse=True)[:12]
    assert [hit.score for hit in answer.hits] == pytest.approx(expected, abs=2e-3)
    assert {hit[0] for hit in hits(answer)[:3]} == {"old-03", "new-04", "old-07"}
    assert len({(h.listing_id, h.photo_number if each_photo else 0) for h in answer.hits}) == 12


async def test_a_crop_and_the_parts_of_a_query_are_not_zoomed(indexed: System) -> None:
    await indexed.embedder("embedder", FakeEmbedder(zoomed=[vector_of("new-04")]))
    await indexed.index("last", "hourly", shard_of([]))
    await indexed.until_described()
    photo = packed(vector_of("old-03"))
    expected = hits(await indexed.search(vector_of("old-03"), k=50))
    crop = search_pb2.CropBox(left=0.1, top=0.1, right=0.9, bottom=0.9)
    assert hits(await indexed.search(photo=photo, crop=crop, k=50)) == expected
    parts = [search_pb2.QueryPart(photo=photo)]
    assert hits(await indexed.search(parts=parts, k=50)) == expected


async def test_a_zoomed_photo_is_admitted_as_the_vectors_that_the_last_one_had(
    indexed: System,
) -> None:
    embedder = FakeEmbedder(zoomed=[vector_of("new-04"), vector_of("old-07")])
    await indexed.embedder("embedder", embedder)
    await indexed.index("last", "hourly", shard_of([]))
    await indexed.until_described()
    photo = packed(vector_of("old-03"))
    request = search_pb2.SearchRequest(photo=photo)

    async def work_while_embedding() -> float:
        calls, embedder.hangs = embedder.calls, True
        searching = asyncio.ensure_future(indexed.search(photo=photo))
        await until(lambda: embedder.calls > calls, "the photo is being embedded")
        work = REGISTRY.get_sample_value("shashin_router_work_in_progress")
        searching.cancel()
        await asyncio.wait({searching})
        embedder.hangs = False
        assert work is not None
        return work

    assert await work_while_embedding() == cost_of_search(request, 1), "nothing is known yet"
    await indexed.search(photo=photo)
    assert await work_while_embedding() == cost_of_search(request, 3)
    embedder.zoomed = []
    await indexed.search(photo=photo)
    assert await work_while_embedding() == cost_of_search(request, 1)


@pytest.mark.parametrize("zoomed", [np.zeros(DIMENSIONS), np.ones(DIMENSIONS - 1)])
async def test_zoomed_views_with_unusable_vectors_are_an_embedder_s_failure(
    indexed: System, zoomed: Vector
) -> None:
    await indexed.embedder("embedder", FakeEmbedder(zoomed=[zoomed]))
    await indexed.index("last", "hourly", shard_of([]))
    await indexed.until_described()
    code, _ = await refusal(indexed, photo=packed(vector_of("old-03")))
    assert code == grpc.StatusCode.FAILED_PRECONDITION


async def test_a_photo_among_parts_that_cannot_be_used_is_named(indexed: System) -> None:
    refused = grpc.StatusCode.INVALID_ARGUMENT, "PhotoUndecodable: not an image"
    await indexed.embedder("embedder", FakeEmbedder(refusal=refused))
    await indexed.index("last", "hourly", shard_of([]))
    await indexed.until_described()
    parts = [by_vector(vector_of("old-03")), search_pb2.QueryPart(photo=b"what is this")]
    assert await refusal(indexed, parts=parts) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "PhotoUndecodable: parts[1].photo: not an image",
    )


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        (
            {"parts": [by_vector(vector_of("a")), by_vector(vector_of("a"), -1.0)]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "parts cancel each other out",
        ),
        (
            {"parts": [search_pb2.QueryPart(vector=b"1234")]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "parts[0].vector has 4 bytes",
        ),
        (
            {"parts": [search_pb2.QueryPart(listing_id="no-such")]},
            grpc.StatusCode.NOT_FOUND,
            "listing 'no-such' is not searchable",
        ),
        (
            {"parts": [by_vector(vector_of("a"))], "min_score": float("nan")},
            grpc.StatusCode.INVALID_ARGUMENT,
            "min_score is nan",
        ),
    ],
)
async def test_a_query_that_cannot_be_answered_is_refused_with_what_to_change(
    indexed: System, fields: dict[str, Any], code: grpc.StatusCode, named: str
) -> None:
    found_code, details = await refusal(indexed, **fields)
    assert found_code == code
    assert named in details


@pytest.mark.parametrize("k", [1, 7, 40, 1000])
async def test_each_photo_can_be_a_hit_and_the_nearest_of_all_tiers_are(
    indexed: System, k: int
) -> None:
    for seed in ("x", "y", "z"):
        query = vector_of(seed)
        answer = await indexed.search(query, k=k, each_photo=True)
        expected = photos_by_score(query, [*OLD, *NEW])[:k]
        found = [(hit.listing_id, hit.photo_number) for hit in answer.hits]
        assert found == [photo[:2] for photo in expected]
        scores = [score for *_, score in expected]
        assert [hit.score for hit in answer.hits] == pytest.approx(scores, abs=1e-5)
        for hit in answer.hits:
            assert hit.photo_uri == f"s3://photos/{hit.listing_id}/1/{hit.photo_number}.jpg"
            assert hit.photo_hash == (1 + hit.photo_number).to_bytes(8, "little").hex()


async def test_each_photo_has_its_highest_score_of_the_photos_that_are_searched_for(
    indexed: System,
) -> None:
    (listing,) = [one for one in OLD if one.listing_id == "old-07"]
    answer = await indexed.search(listing_id="old-07", k=20, each_photo=True)
    queries = [row.vector.astype(np.float16).astype("f4") for row in listing.rows()]
    best: dict[tuple[str, int], float] = {}
    for query in queries:
        for listing_id, number, score in photos_by_score(query, [*OLD, *NEW]):
            best[listing_id, number] = max(score, best.get((listing_id, number), -1.0))
    expected = sorted((photo for photo in best if photo[0] != "old-07"), key=lambda p: -best[p])
    assert [(hit.listing_id, hit.photo_number) for hit in answer.hits] == expected[:20]


async def test_a_hit_lists_the_other_photos_of_its_listing_if_they_are_asked_for(
    indexed: System,
) -> None:
    query = vector_of("old-07", photo=2)
    answer = await indexed.search(query, k=3, other_photos=True)
    hit = answer.hits[0]
    assert (hit.listing_id, hit.photo_number) == ("old-07", 2)
    of_listing = [photo for photo in photos_by_score(query, OLD) if photo[0] == "old-07"]
    assert [photo.photo_number for photo in hit.other_photos] == [n for _, n, _ in of_listing[1:]]
    assert [photo.score for photo in hit.other_photos] == pytest.approx(
        [score for *_, score in of_listing[1:]], abs=1e-5
    )
    first = hit.other_photos[0]
    assert first.uri == f"s3://photos/old-07/1/{first.photo_number}.jpg"
    assert first.hash == (1 + first.photo_number).to_bytes(8, "little").hex()
    assert not any(hit.other_photos for hit in (await indexed.search(query, k=3)).hits)


async def test_hidden_listings_are_in_no_photo(indexed: System) -> None:
    (listing,) = [one for one in OLD if one.listing_id == "old-07"]
    served = indexed.endpoints[0].served
    assert served is not None
    hide(served, "old-07", 2)
    answer = await indexed.search(listing.rows()[0].vector, k=1000, each_photo=True)
    assert len(answer.hits) == sum(one.photos for one in [*OLD, *NEW]) - listing.photos
    assert "old-07" not in {hit.listing_id for hit in answer.hits}


async def test_only_ids_can_be_asked_for(indexed: System) -> None:
    query = vector_of("old-03")
    for extra in ({}, {"other_photos": True}):
        answer = await indexed.search(query, k=5, ids_only=True, **extra)
        assert hits(answer) == hits(await indexed.search(query, k=5))
        assert all(hit.tier for hit in answer.hits)
        assert not any(hit.HasField("attributes") for hit in answer.hits)
        assert not any(hit.photo_uri or hit.photo_hash for hit in answer.hits)
        assert any(hit.other_photos for hit in answer.hits) == bool(extra)
        assert not any(photo.uri for hit in answer.hits for photo in hit.other_photos)


async def test_hits_have_their_photo(indexed: System) -> None:
    for hit in (await indexed.search(vector_of("x"), k=50)).hits:
        assert hit.photo_uri == f"s3://photos/{hit.listing_id}/1/{hit.photo_number}.jpg"


async def test_excluded_listings_leave_k_hits(indexed: System) -> None:
    query = vector_of("x")
    everything = hits(await indexed.search(query, k=50))
    excluded = [listing_id for listing_id, *_ in everything[:30]]
    answer = await indexed.search(query, k=20, excluded_listing_ids=excluded)
    assert hits(answer) == everything[30:]
    assert all(hit.HasField("attributes") for hit in answer.hits)


async def test_only_hits_of_a_minimal_score_are_returned(indexed: System) -> None:
    query = vector_of("x")
    everything = await indexed.search(query, k=50)
    least = everything.hits[9].score
    answer = await indexed.search(query, k=50, min_score=least)
    assert hits(answer) == hits(everything)[:10]
    assert not (await indexed.search(query, k=50, min_score=1.0)).hits
    photos = await indexed.search(query, k=50, min_score=least, each_photo=True)
    assert len(photos.hits) >= 10
    assert all(hit.score >= least for hit in photos.hits)


async def test_up_to_a_thousand_hits_can_be_asked_for(system: System) -> None:
    listings = [Listing(f"l-{i:04d}") for i in range(1_300)]
    await system.index("hourly", "hourly", shard_of(listings[:700]))
    await system.index("indexer", "live", shard_of(listings[700:], from_offset=700))
    await system.until_described()
    query = vector_of("x")
    answer = await system.search(query, k=1000)
    expected = [listing_id for listing_id, *_ in photos_by_score(query, listings)[:1000]]
    assert [hit.listing_id for hit in answer.hits] == expected
    assert all(hit.photo_uri for hit in answer.hits)


async def test_an_answer_says_how_many_endpoints_were_asked(indexed: System) -> None:
    answer = await indexed.search(vector_of("x"))
    assert (answer.endpoints_asked, answer.endpoints) == (2, 2)
    await indexed.endpoints[0].stop()
    answer = await indexed.search(vector_of("x"))
    assert (answer.endpoints_asked, answer.endpoints) == (2, 1)
    assert [failed.name for failed in answer.failed_endpoints] == ["hourly"]
