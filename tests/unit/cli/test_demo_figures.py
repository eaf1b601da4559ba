from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.cli.demo.report import Figures, figures_document, percentile, print_figures
from shashin.cli.demo.run import StallTimer, demo_problems
from shashin.terminal.console import seconds
from shashin.v1 import search_pb2
from shashin.workload.progress import PipelineProgress
from shashin.workload.searches import Searches

COMPLETE = PipelineProgress(
    published=12,
    downloaded=10,
    embedded=10,
    searchable=10,
    sealed=10,
    served=10,
    shards_sealed=3,
    shards_served=3,
    coverage=search_pb2.Coverage(complete=True),
)


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_measured_value_that_enough_values_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_without_values_there_is_no_percentile() -> None:
    assert percentile([], 0.5) is None
    assert percentile(list(range(1, 101)), 0.99) == 99


def test_recall_counts_the_listings_rank() -> None:
    searches = Searches(ranks=[1, 2, None, 10])
    assert searches.recall_at(1) == 0.25
    assert searches.recall_at(10) == 0.75
    assert Searches().recall_at(1) is None


def test_a_complete_run_has_no_problems() -> None:
    assert demo_problems(COMPLETE, [], 12) == []


@pytest.mark.parametrize(
    ("change", "ghosts", "message"),
    [
        ({"published": 11}, [], "12 events were sent, but listings.events contains 11"),
        ({}, ["a"], "1 sold listings are still found: a"),
        ({"coverage": search_pb2.Coverage()}, [], "coverage NOT complete"),
        ({"coverage": None}, [], "coverage NOT complete"),
        ({"sealed": 9, "served": 9}, [], "9 of 10 embedded versions are sealed"),
        ({"served": 9}, [], "3 of 3 sealed shards are served, with 9 of 10 versions"),
        ({"shards_served": 2}, [], "2 of 3 sealed shards are served"),
    ],
)
def test_each_problem_at_the_end_is_reported(
    change: dict[str, object], ghosts: list[str], message: str
) -> None:
    broken = PipelineProgress(**{**COMPLETE.__dict__, **change})
    (problem,) = demo_problems(broken, ghosts, 12)
    assert message in problem


def test_a_stall_timer_expires_only_when_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("shashin.cli.demo.run.time.monotonic", lambda: clock[0])
    timer = StallTimer(10)
    for now, seen, over in ((0, "a", 0), (9, "a", 0), (11, "b", 0), (20, "b", 0), (22, "b", 1)):
        clock[0] = now
        assert timer.expired(seen) == bool(over)


FIGURES = Figures(
    listings=2000,
    photos=6000,
    events=2120,
    stream_s=100.0,
    events_per_s=21.2,
    photos_per_s=60.6,
    freshness_p50_s=0.21,
    freshness_p99_s=1.5,
    freshness_samples=200,
    gone_p50_s=None,
    gone_p99_s=None,
    gone_samples=0,
    recall_at_1=0.9,
    recall_at_10=0.987654,
    queries=300,
    query_p50_s=0.02,
    query_p99_s=0.1,
    sold=100,
    updated=20,
    ghosts=0,
    coverage_complete=True,
    shards_sealed=24,
    shards_served=24,
    searchable=1900,
    hidden=220,
    dead_lettered=0,
    photos_dead_lettered=0,
    wall_s=170.0,
    peak_memory_bytes={"kafka": 300_000_000, "router": 80_000_000},
    problems=["something"],
)


def test_the_json_has_the_documented_names() -> None:
    document = json.loads(json.dumps(figures_document(FIGURES)))
    promised = (
        "listings, photos, freshness_p50_s, freshness_p99_s, recall_at_1, recall_at_10, ghosts, "
        "coverage_complete, shards_sealed, shards_served, wall_s"
    )
    assert set(promised.split(", ")) <= set(document)
    assert document["recall_at_10"] == 0.9877


def test_the_figures_print_with_their_units(capsys: pytest.CaptureFixture[str]) -> None:
    print_figures(FIGURES, "a = b", "photos")
    printed = capsys.readouterr().out
    for part in ("p50 210 ms, p99 1.50 s", "0 of 100 sold", "380.0 MB  total", "a = b"):
        assert part in printed
    assert "problem: something" in printed


def test_no_time_is_a_dash() -> None:
    assert seconds(None) == "-"
