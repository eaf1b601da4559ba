"""What a run has to show beside its zeros."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from shashin.local.ports import free_port
from tests.chaos.evidence import Evidence, missing, wrong
from tests.chaos.metrics import Counted

NOTHING = Evidence(
    expected_pauses=["router", "index-server-daily"],
    expected_codecs=["lz4", "zstd"],
    expected_replicas=["indexer-other-bytes"],
    expected_deletions=["listings.events"],
)
WHOLE = replace(
    NOTHING,
    paused=["index-server-daily", "router"],
    manifest_was_unreadable=True,
    sealed=Counter({"indexer-other-bytes": 1}),
    sealed_differently=Counter({"index": 1, "range": 3}),
    replicas_ended={"indexer-other-bytes": []},
    deleted={"listings.events": 1},
    batches={"lz4": 1, "zstd": 1},
    committed=1,
    aborted=1,
    complete_answers=1,
    builds_succeeded=1,
    builds_killed=1,
    broker_killed=True,
)


def test_nothing_is_missing_or_wrong_once_everything_has_happened() -> None:
    assert missing(WHOLE) == wrong(WHOLE) == []


@pytest.mark.parametrize(
    ("without", "named"),
    [
        ({"paused": ["router"]}, "index-server-daily"),
        ({"manifest_was_unreadable": False}, "manifest"),
        ({"sealed": Counter({"indexer-other-bytes": 0})}, "indexer-other-bytes"),
        ({"sealed_differently": Counter({"range": 3})}, "other bytes"),
        ({"deleted": {"listings.events": 0}}, "listings.events"),
        ({"batches": {"lz4": 5}}, "zstd"),
        ({"committed": 0}, "committed"),
        ({"aborted": 0}, "aborted"),
        ({"complete_answers": 0}, "complete"),
        ({"builds_succeeded": 0}, "succeeded"),
        ({"builds_killed": 0}, "run of builds"),
        ({"broker_killed": False}, "broker"),
    ],
)
def test_each_thing_that_did_not_happen_is_missing(without: dict[str, Any], named: str) -> None:
    (line,) = missing(replace(WHOLE, **without))
    assert named in line


def test_a_run_in_which_nothing_happened_has_everything_missing() -> None:
    assert len(missing(NOTHING)) == 14


def test_a_replica_that_ends_by_itself_and_other_rows_are_wrong() -> None:
    ended = replace(WHOLE, replicas_ended={"indexer-other-bytes": [1]})
    assert [line for line in wrong(ended) if "ended by itself, with [1]" in line]
    assert len(wrong(replace(WHOLE, sealed_differently=Counter({"index": 1, "rows": 2})))) == 1


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[str], Any]]:
    """Serve a text as /metrics of an address; each call replaces the text."""
    text = ""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port())
    await site.start()

    def set_text(new: str) -> str:
        nonlocal text
        text = new
        return f"127.0.0.1:{port}"

    yield set_text
    await runner.cleanup()


async def test_what_earlier_runs_of_a_process_counted_is_not_forgotten(
    serve: Callable[[str], str],
) -> None:
    counted = Counted(label="what")
    sample = (
        '# TYPE sealed counter\nsealed_total{{what="index"}} {}\nsealed_total{{what="rows"}} 1\n'
    )
    await counted.look("indexer", 7, serve(sample.format(2)))
    await counted.look("indexer", 7, serve(sample.format(3)))
    await counted.look("indexer", 8, serve(sample.format(1)))
    await counted.look("other", 9, serve(sample.format(10)))
    await counted.look("indexer", 8, f"127.0.0.1:{free_port()}")
    assert counted.total("sealed_total", of="indexer", label="index") == 3 + 1
    assert counted.total("sealed_total", of="indexer") == 3 + 1 + 1 + 1
    assert counted.total("sealed_total", label="index") == 3 + 1 + 10
    assert counted.total("never_total") == 0
