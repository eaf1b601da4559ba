"""Switching models: every answer is of one model, and no search fails, also under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial

from tests.support.running_router import (
    DIMENSIONS,
    MODEL,
    FakeEmbedder,
    HeldBackEndpoint,
    Listing,
    System,
    hits,
    shard_of,
    vector_of,
)
from tests.support.waiting import until

OTHER = "other-model"
PHOTO = b"a photo"


def listings(prefix: str) -> list[Listing]:
    return [Listing(f"{prefix}-{number}") for number in range(20)]


async def both_models(system: System) -> None:
    """Start the endpoints of two models, whose listings have other names."""
    for model_id, prefix in ((MODEL, "a"), (OTHER, "b")):
        await system.index(
            f"indexer-{prefix}",
            "live",
            shard_of(listings(prefix)),
            model_id=model_id,
            announced_model=model_id,
        )
        await system.embedder(
            f"embedder-{prefix}",
            FakeEmbedder(model_id=model_id, vector=vector_of(f"{prefix}-3")),
            announced_model=model_id,
        )


def exact(prefix: str, k: int) -> list[str]:
    """Return the listings of one model that are nearest to the photo in its space, nearest first."""
    query = vector_of(f"{prefix}-3")
    nearest = sorted(listings(prefix), key=lambda one: -float(vector_of(one.listing_id) @ query))
    return [listing.listing_id for listing in nearest[:k]]


def activate(system: System, model_id: str, dimensions: int = DIMENSIONS) -> None:
    system.active = {"model_id": model_id, "dimensions": dimensions}
    system.announce()


async def model_is(system: System, model_id: str) -> bool:
    return (await system.status()).model_id == model_id


async def test_searches_follow_the_active_model_there_and_back(system: System) -> None:
    await both_models(system)
    await system.until_models_are(**{"indexer-a": MODEL, "indexer-b": OTHER})
    for model_id, prefix in ((OTHER, "b"), (MODEL, "a"), (OTHER, "b")):
        activate(system, model_id)
        await until(partial(model_is, system, model_id), f"{model_id} is searched")
        answer = await system.search(photo=PHOTO, k=3)
        assert answer.model_id == model_id
        assert hits(answer)[0] == (f"{prefix}-3", 1, 0)
        assert {hit.listing_id[0] for hit in answer.hits} == {prefix}
        assert answer.coverage.complete


async def test_during_switches_under_load_no_search_fails_and_no_answer_mixes_models(
    system: System,
) -> None:
    await both_models(system)
    await system.until_models_are(**{"indexer-a": MODEL, "indexer-b": OTHER})
    expected = {MODEL: exact("a", 5), OTHER: exact("b", 5)}
    answers: Counter[str] = Counter()
    stop = asyncio.Event()

    async def search() -> None:
        while not stop.is_set():
            answer = await system.search(photo=PHOTO, k=5)
            found = [hit.listing_id for hit in answer.hits]
            assert found == expected[answer.model_id], "query and hits are of the same model"
            assert answer.coverage.complete
            assert not answer.failed_endpoints
            answers[answer.model_id] += 1

    searching = [asyncio.ensure_future(search()) for _ in range(8)]
    try:
        for number in range(6):
            model_id = (OTHER, MODEL)[number % 2]
            before = answers[model_id]
            activate(system, model_id)
            await until(
                partial(_has_answered, answers, model_id, before + 20, searching),
                f"{model_id} is searched",
            )
    finally:
        stop.set()
        await asyncio.gather(*searching)
    assert min(answers[MODEL], answers[OTHER]) > 60


async def test_a_search_that_began_before_the_switch_ends_with_the_model_it_began_with(
    system: System,
) -> None:
    await system.index(
        "indexer-b", "live", shard_of(listings("b")), model_id=OTHER, announced_model=OTHER
    )
    held = await system.index(
        "indexer-a",
        "live",
        shard_of(listings("a")),
        kind=HeldBackEndpoint,
        announced_model=MODEL,
    )
    await system.until_models_are(**{"indexer-a": MODEL, "indexer-b": OTHER})
    search = asyncio.ensure_future(system.search(vector_of("a-3"), k=1))
    await until(held.handlers.searching.is_set, "the search is at its endpoint")
    activate(system, OTHER)
    await until(lambda: model_is(system, OTHER), "the other model is searched")
    assert (await system.search(vector_of("b-3"), k=1)).model_id == OTHER
    held.handlers.released.set()
    answer = await search
    assert (answer.model_id, hits(answer)) == (MODEL, [("a-3", 1, 0)])


async def test_a_model_that_cannot_be_searched_does_not_take_over_and_that_is_reported(
    system: System,
) -> None:
    await system.index("indexer-a", "live", shard_of(listings("a")), announced_model=MODEL)
    await system.until_models_are(**{"indexer-a": MODEL})
    activate(system, OTHER)
    await until(
        lambda: any("'other-model' is active" in problem for problem in system.health.problems()),
        "it is reported",
    )
    answer = await system.search(vector_of("a-3"), k=1)
    assert (answer.model_id, hits(answer)) == (MODEL, [("a-3", 1, 0)])
    await system.index(
        "indexer-b", "live", shard_of(listings("b")), model_id=OTHER, announced_model=OTHER
    )
    await until(lambda: model_is(system, OTHER), "the other model is searched")
    await until(lambda: not system.health.problems(), "nothing is wrong any more")


async def test_discovery_that_names_no_model_changes_nothing(system: System) -> None:
    await both_models(system)
    activate(system, OTHER)
    await until(lambda: model_is(system, OTHER), "the other model is searched")
    system.active = None
    reads = (system.folder / "discovery.json").stat().st_mtime_ns
    system.announce()
    assert (system.folder / "discovery.json").stat().st_mtime_ns != reads
    late = await system.index(
        "late", "hourly", shard_of([Listing("b-late")]), model_id=OTHER, announced_model=OTHER
    )
    await until(lambda: _knows(system, late.name), "the file without a model has been read")
    assert await model_is(system, OTHER)


async def test_a_discovery_that_may_be_out_of_date_is_reported_and_its_endpoints_are_searched(
    system: System,
) -> None:
    await system.index("indexer-a", "live", shard_of(listings("a")))
    await system.until_models_are(**{"indexer-a": MODEL})
    (system.folder / "discovery.json").write_text("half a fi")
    await until(
        lambda: any("discovery.json is invalid" in one for one in system.health.problems()),
        "it is reported",
    )
    assert hits(await system.search(vector_of("a-3"), k=1)) == [("a-3", 1, 0)]
    system.announce()
    await until(lambda: not system.health.problems(), "nothing is wrong any more")


async def _knows(system: System, name: str) -> bool:
    return name in [e.name for e in (await system.status()).endpoints if e.ready]


def _has_answered(
    answers: Counter[str], model_id: str, wanted: int, searching: Sequence[asyncio.Future[None]]
) -> bool:
    return answers[model_id] > wanted or any(one.done() for one in searching)
