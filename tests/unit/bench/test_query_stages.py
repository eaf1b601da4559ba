"""Sampled stacks and the stages of a query that they belong to."""

from __future__ import annotations

from bench.query_stages import (
    BACKGROUND,
    OTHER,
    ROUTER,
    SERVER,
    samples_by_stage,
    stage_of,
    waits,
)

LOOP = "Runner.run (asyncio/runners.py:118)"
ENDPOINT = "IndexEndpoint.Search (shashin/serving/endpoint.py:90)"
MERGE = "merge (services/router/merge.py:86)"


def test_the_innermost_known_frame_decides() -> None:
    assert stage_of([LOOP, MERGE], ROUTER) == "merge"
    assert stage_of([MERGE, LOOP], ROUTER) == "event loop"


def test_a_library_counts_for_the_stage_that_called_it() -> None:
    numpy = "ufunc_generic_fastcall (numpy/_core/_multiarray_umath.so)"
    assert stage_of([LOOP, "query_vector (services/router/queries.py:99)", numpy], ROUTER) == (
        "decode and validate"
    )


def test_a_stack_without_a_known_frame_is_other() -> None:
    assert stage_of(["main (elsewhere.py:1)"], ROUTER) == OTHER
    assert stage_of([], SERVER) == OTHER


def test_the_search_in_native_code_is_apart_from_the_shards_around_it() -> None:
    shard = "SealedShard.search (shashin/shards/shard.py:96)"
    assert stage_of([ENDPOINT, shard], SERVER) == "search: each shard"
    native = "search (shashin/shards/kinds/native/lists.so)"
    assert stage_of([ENDPOINT, shard, native], SERVER) == "search: native code"
    usearch = "unum::usearch::index_gt<float>::search (index.hpp:4780)"
    assert stage_of([ENDPOINT, shard, usearch], SERVER) == "search: native code"


def test_polls_are_no_part_of_a_query() -> None:
    poll = "EndpointWatch.describe_once (services/router/endpoints.py:110)"
    assert stage_of([LOOP, poll], ROUTER) == BACKGROUND


def test_threads_that_wait_are_not_counted() -> None:
    idle = [LOOP, "uv__io_poll (linux.c:1380)", "epoll_pwait (libc.so.6)"]
    lock = [
        "get (queue.py:1)",
        "PyThread_acquire_lock_timed (libpython3.11.so)",
        "0x7f (libc.so.6)",
    ]
    assert waits(idle)
    assert waits(lock)
    assert not waits([LOOP, MERGE])
    raw = [f"{';'.join(idle)} 70", f"{';'.join(lock)} 20", f"{LOOP};{MERGE} 3", f"{LOOP} 7", ""]
    assert samples_by_stage(raw, ROUTER) == {"event loop": 7, "merge": 3}
