"""BatchedModel: query priority, batching, and mapping of results to callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.embedder.batching import BatchedModel, Kind
from tests.support.collector import collecting
from tests.support.loops import loop_scope
from tests.support.traced import tracing_on
from tests.support.waiting import until
from tests.unit.embedder.colour_model import ColourModel


def photos(*reds: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (red, 100, 0)) for red in reds]


@asynccontextmanager
async def batched(model: ColourModel, *, batch_photos: int = 4) -> AsyncIterator[BatchedModel]:
    stopping = asyncio.Event()
    with ThreadPoolExecutor(1) as executor:
        batching = BatchedModel(model, executor, batch_photos=batch_photos)
        running = asyncio.ensure_future(batching.run(loop_scope(stop=stopping)))
        try:
            yield batching
        finally:
            model.unblocked.set()
            stopping.set()
            await running


@settings(max_examples=40, deadline=None)
@given(
    jobs=st.lists(
        st.tuples(
            st.lists(st.integers(1, 255), min_size=0, max_size=9), st.sampled_from(list(Kind))
        ),
        max_size=12,
    ),
    batch=st.integers(1, 7),
)
async def test_each_caller_gets_the_vectors_of_its_own_photos(
    jobs: list[tuple[list[int], Kind]], batch: int
) -> None:
    model = ColourModel()
    async with batched(model, batch_photos=batch) as batching:
        answers = await asyncio.gather(
            *(batching.embed(photos(*reds), kind) for reds, kind in jobs)
        )
    for (reds, _), answer in zip(jobs, answers, strict=True):
        assert answer.shape == (len(reds), 3)
        for red, vector in zip(reds, answer, strict=True):
            assert vector[0] / vector[1] == pytest.approx(red / 100, rel=1e-3)
    assert all(count <= batch for count in model.calls)


async def test_queries_overtake_listings_and_share_a_call() -> None:
    model = ColourModel()
    model.unblocked.clear()
    async with batched(model) as batching:
        order: list[str] = []

        async def ask(name: str, kind: Kind, count: int) -> None:
            await batching.embed(photos(*range(1, count + 1)), kind)
            order.append(name)

        listing = asyncio.ensure_future(ask("listing", Kind.LISTING, 12))
        await until(lambda: model.calls == [4], "the listing's first part is under way")
        queries = [asyncio.ensure_future(ask("query", Kind.QUERY, 1)) for _ in range(3)]
        await until(lambda: batching.waiting(Kind.QUERY) == 3, "the queries wait")
        model.unblocked.set()
        await asyncio.gather(listing, *queries)
    assert order == ["query"] * 3 + ["listing"]
    assert model.calls == [4, 3, 4, 4]


async def test_an_error_reaches_only_callers_with_photos_in_the_call() -> None:
    model = ColourModel()
    async with batched(model, batch_photos=1) as batching:
        bad = asyncio.ensure_future(batching.embed([Image.new("RGB", (4, 4))], Kind.QUERY))
        good = asyncio.ensure_future(batching.embed(photos(7), Kind.QUERY))
        with pytest.raises(ZeroDivisionError, match="black"):
            await bad
        assert (await good).shape == (1, 3)


async def test_a_cancelled_caller_costs_no_call() -> None:
    model = ColourModel()
    model.unblocked.clear()
    async with batched(model) as batching:
        first = asyncio.ensure_future(batching.embed(photos(1), Kind.QUERY))
        await until(lambda: model.calls, "a call is under way")
        cancelled = asyncio.ensure_future(batching.embed(photos(2), Kind.QUERY))
        await until(lambda: batching.waiting(Kind.QUERY) == 1, "one waits")
        cancelled.cancel()
        await asyncio.wait([cancelled])
        model.unblocked.set()
        await first
    assert model.calls == [1]


async def test_requests_queued_at_shutdown_are_answered() -> None:
    model = ColourModel()
    model.unblocked.clear()
    async with batched(model) as batching:
        requests = [
            asyncio.ensure_future(batching.embed(photos(i + 1), Kind.QUERY)) for i in range(9)
        ]
        await until(lambda: model.calls, "a call is under way")
    answers = np.concatenate([await answer for answer in requests])
    assert answers.shape == (9, 3)


async def test_a_model_call_is_a_span_that_is_linked_with_all_whose_photos_it_embeds() -> None:
    model = ColourModel()
    model.unblocked.clear()
    with collecting() as collector, tracing_on(collector) as tracer:
        async with batched(model, batch_photos=4) as batching:

            async def query(name: str) -> None:
                with tracer.span(name):
                    await batching.embed(photos(1), Kind.QUERY)

            first = asyncio.ensure_future(query("first"))
            await until(lambda: model.calls, "the model is busy")
            others = [asyncio.ensure_future(query(name)) for name in ("second", "third")]
            await until(lambda: batching.waiting(Kind.QUERY) == 2, "the others wait")
            model.unblocked.set()
            await asyncio.gather(first, *others)
    queries = {name: collector.spans(name=name)[0] for name in ("first", "second", "third")}
    alone, shared = sorted(collector.spans(name="call model"), key=lambda span: span.began_ns)
    assert (alone.parent_id, alone.links) == (queries["first"].span_id, ())
    assert shared.parent_id == queries["second"].span_id
    assert shared.links == (queries["third"].identity,)
    assert queries["third"].links == (shared.identity,)
    assert shared.attributes == {"shashin.photos": 2, "shashin.kind": "query"}
