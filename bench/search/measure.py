"""Measures searches of this system and of others in one run over the same vectors."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.figures import Figure, percentile
from bench.search import arriving, filters, open_shards, peers, plot, system
from bench.search.curves import Curve, Point, measured_point, per_second_at
from bench.search.data import DIMENSIONS, DataSet, K, Numbers, Vectors, exact, made, recall
from bench.search.processes import (
    found_by,
    requests_of,
    running,
    search_alone,
    search_together,
)
from bench.search.sealed import prepared_kind, write_shards
from bench.search.vector_stream import vectors_arriving
from shashin.serving.served_shards import ServedShards
from shashin.shards.format.manifest import Manifest
from shashin.shards.kinds.protocol import IndexKind
from shashin.terminal.console import echo, echo_stderr, echo_table

ROWS, QUERIES, FEW_QUERIES = 260_000, 1_000, 100
KIND = "ivf-sq4"
DOCUMENT, DRAWING = "search.json", "search.svg"
SHARDS = 65
CLIENTS = 32
COMPARED_RECALL = 0.97
BUILT_ROWS = 100_000
HIDDEN_SHARES = (0.0, 0.01, 0.1)
DATA_SETS = ("easy", "hard")
PARTS = ("curves", "in-process", "filters", "open", "build", "processes")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rows: int = ROWS
    queries: int = QUERIES
    kind: str = KIND
    seconds: float = 10.0
    """Of each measurement through the router."""
    parts: Sequence[str] = PARTS
    peers: Sequence[str] = peers.LIBRARIES
    """Libraries that curves are compared with."""


@dataclass
class Results:
    """What was measured."""

    figures: dict[str, float] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    filters: list[filters.Filtered] = field(default_factory=list)
    open_shards: list[open_shards.OpenCost] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return this for JSON output."""
        return {
            "figures": self.figures,
            "curves": [curve.document() for curve in self.curves],
            "filters": [asdict(one) for one in self.filters],
            "open shards": [asdict(one) for one in self.open_shards],
        }


def planned_figures() -> list[Figure]:
    """Return every figure of searches with its goal."""
    return [
        *(
            Figure(f"search, {data}: of hnswlib at recall 0.97", "x", 1.0, at_least=True)
            for data in DATA_SETS
        ),
        *(Figure(f"search, {data}: recall@10 of 65 shards", "") for data in DATA_SETS),
        Figure("search, in process: 65 shards, time", "of one shard", 1.5),
        Figure("search, in process: p99 with 500 rows/s", "of idle"),
        Figure("search, in process: queries with 500 rows/s", "of idle"),
        *(
            Figure(f"search, in process: {share:.0%} hidden, {what}", unit)
            for share in HIDDEN_SHARES
            for what, unit in (("p50", "ms"), ("recall@10", ""))
        ),
        Figure("search: vector appended to found p99", "ms", 20.0),
        Figure("search: sold to gone p99", "ms", 20.0),
        *(
            Figure(f"search, {data}, filters: lowest recall@10, {layout}", "", 0.99, at_least=True)
            for data in DATA_SETS
            for layout in filters.LAYOUTS
        ),
        *(
            Figure(f"search, {data}, filters: queries with k hits", "", 1.0, at_least=True)
            for data in DATA_SETS
        ),
        *(
            Figure(
                f"search, {data}, filters: of USearch at 1 %, {layout}",
                "x",
                None if layout == "correlated" else 10.0,  # it is at its best then
                at_least=True,
            )
            for data in DATA_SETS
            for layout in filters.LAYOUTS
        ),
        Figure("search: build of 100,000 rows", "x USearch", 3.0, at_least=True),
        Figure("search: recall@10 of that build", ""),
        Figure("search: recall@10 of USearch's build", ""),
        Figure("search: memory of a sealed row", "bytes", 120.0),
        Figure("search: of it, allocated", "bytes"),
        Figure("search: of it, mapped", "bytes"),
        Figure("search: quantizers of the shards, a row", "bytes"),
        Figure("search, router: alone p50", "ms", 2.0),
        Figure("search, router: alone p99", "ms", 5.0),
        Figure("search, router: 32 clients", "queries/s", 1_500.0, at_least=True),
        Figure("search, router: recall@10", ""),
        Figure("search, router: 65 shards, time alone", "of one shard", 1.5),
        Figure("search, router: 65 shards, 32 clients", "of one shard", 0.7, at_least=True),
        Figure("search, router: p99 with 500 rows/s", "of idle", 1.2),
        Figure("search, router: queries with 500 rows/s", "of idle", 0.9, at_least=True),
    ]


async def search(scratch: Path) -> dict[str, float]:
    """Measure everything, and leave ``search.json`` and ``search.svg`` beside the scratch folder.

    In a process of its own, since the order in which libraries are loaded matters (bench.search).
    """
    written = scratch.parent
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.search", "--scratch", str(scratch), "--out", str(written))
    )
    if await process.wait():
        raise RuntimeError(f"python -m bench.search ended with {process.returncode}")
    found: dict[str, float] = json.loads((written / DOCUMENT).read_bytes())["figures"]
    return found


def report(results: Results, folder: Path) -> None:
    """Write the results and their plot to a folder, and print tables of what is no single figure."""
    document, drawing = folder / DOCUMENT, folder / DRAWING
    document.write_text(json.dumps(results.document(), indent=1) + "\n", encoding="utf-8")
    echo(f"curves and filters: {document}")
    if results.curves:
        title = "Recall and speed, in process; solid: 65 shards searched together"
        if plot.draw(results.curves, title, drawing):
            echo(f"plot: {drawing}")
        echo_table(
            ["data", "index", ">built in s", ">best recall", ">queries/s at 0.97"],
            [_curve_row(curve) for curve in results.curves],
        )
    if results.filters:
        echo_table(
            [
                *("data", "rows that match", ">share", ">recall@10", ">filled", ">p50 ms"),
                *(">new filter", ">USearch p50", ">USearch recall"),
            ],
            [_filter_row(one) for one in results.filters],
        )
    if results.open_shards:
        echo_table(
            [
                *("data", "open shard", ">rows", ">added in us/row", ">p50 ms", ">recall@10"),
                ">index bytes/row",
            ],
            [_open_row(one) for one in results.open_shards],
        )


def _curve_row(curve: Curve) -> list[str]:
    at = per_second_at(curve.points, COMPARED_RECALL)
    best = max(point.recall for point in curve.points)
    return [
        curve.data,
        curve.name,
        f"{curve.build_seconds:.1f}",
        f"{best:.4f}",
        "" if at is None else f"{at:,.0f}",
    ]


def _filter_row(one: filters.Filtered) -> list[str]:
    return [
        one.data,
        one.layout,
        f"{one.selectivity:.2%}",
        f"{one.recall:.4f}",
        f"{one.filled:.0%}",
        f"{one.p50:.2f}",
        f"{one.first_p50:.2f}",
        f"{one.usearch_p50:.2f}",
        f"{one.usearch_recall:.4f}",
    ]


def _open_row(one: open_shards.OpenCost) -> list[str]:
    return [
        one.data,
        one.kind,
        f"{one.rows:,}",
        f"{one.added_microseconds:.1f}",
        f"{one.p50:.3f}",
        f"{one.recall:.4f}",
        f"{one.index_bytes:.0f}",
    ]


async def measured(size: Size, scratch: Path) -> Results:
    """Measure the chosen parts."""
    results = Results()
    for name in DATA_SETS:
        data = await asyncio.to_thread(made, name, size.rows, size.queries)
        folder = scratch / name
        if "open" in size.parts:
            echo_stderr(f"search, {name}: open shards")
            results.open_shards += await asyncio.to_thread(open_shards.measured, data)
        if name != DATA_SETS[0] and not {"curves", "filters"}.intersection(size.parts):
            continue
        await asyncio.to_thread(_in_process, size, data, folder, results)
        if name == DATA_SETS[0]:
            if "build" in size.parts:
                built = min(BUILT_ROWS, size.rows)
                results.figures |= await asyncio.to_thread(_build, size, data, built, folder)
                results.figures |= await _resident(data, folder)
            if "processes" in size.parts:
                results.figures |= await _processes(size, data, folder)
        shutil.rmtree(folder, ignore_errors=True)
    return results


def _in_process(size: Size, data: DataSet, folder: Path, results: Results) -> None:
    echo_stderr(f"search, {data.name}: writing shards of {size.rows:,} rows")
    grouped = filters.Grouped.over(data.rows)
    kind = prepared_kind(size.kind, data.rows)
    manifests: dict[int, list[Manifest]] = {}
    seconds: dict[int, float] = {}
    for count in (1, SHARDS):
        started = time.perf_counter()
        manifests[count] = write_shards(folder / str(count), kind, data.rows, count, grouped.of_row)
        seconds[count] = time.perf_counter() - started
    if "curves" in size.parts:
        _curves(size, data, folder, manifests, seconds, results)
    serving = system.served(system.opened(folder / str(SHARDS), manifests[SHARDS]))
    if "filters" in size.parts:
        results.filters += _filters(data, grouped, serving)
        results.figures |= _filter_figures(data.name, results.filters)
    if "in-process" in size.parts and data.name == DATA_SETS[0]:
        results.figures |= _compared_shards(data, folder, manifests)
        results.figures |= _while_arriving(data, folder, manifests[SHARDS])
        results.figures |= _hidden(data, folder, manifests[SHARDS])
        shards = system.opened(folder / str(SHARDS), manifests[SHARDS])
        results.figures |= arriving.freshness(shards)


def _measured(setting: float, serving: ServedShards, queries: Vectors, nearest: Numbers) -> Point:
    """Search by this system; answers are columns with listing ids."""
    return measured_point(
        setting,
        lambda query: system.search(serving.snapshot(), query),
        queries,
        nearest,
        rows_of=system.found_rows,
    )


def _curves(
    size: Size,
    data: DataSet,
    folder: Path,
    manifests: dict[int, list[Manifest]],
    seconds: dict[int, float],
    results: Results,
) -> None:
    own: dict[int, Curve] = {}
    for count, of_count in manifests.items():
        name = f"Shashin, {count} shard{'s' if count > 1 else ''}"
        serving = system.served(system.opened(folder / str(count), of_count))
        echo_stderr(f"search, {data.name}: {name}")
        points = []
        for factor in system.FACTORS if size.kind == KIND else (1.0,):
            with system.probes_times(factor):
                points.append(_measured(factor, serving, data.queries, data.nearest))
        own[count] = Curve(name, data.name, "probes factor", seconds[count], points)
        results.curves.append(own[count])
    bare: float | None = None
    for peer in peers.built_peers(data.rows, folder, size.peers):
        echo_stderr(f"search, {data.name}: {peer.name}")
        count = FEW_QUERIES if peer.few_queries else len(data.queries)
        points = []
        for setting in peer.settings:
            peer.turn(setting)
            queries, nearest = data.queries[:count], data.nearest[:count]
            points.append(
                measured_point(setting, peer.search, queries, nearest, rows_of=peer.rows_of)
            )
        results.curves.append(Curve(peer.name, data.name, peer.knob, peer.build_seconds, points))
        if peer.name == "hnswlib":
            bare = per_second_at(points, COMPARED_RECALL)
        del peer
        gc.collect()
    if missing := peers.missing(size.peers):
        echo_stderr(f"not compared: {', '.join(missing)}; {peers.INSTALL}")
    ours = per_second_at(own[SHARDS].points, COMPARED_RECALL)
    if bare and ours:
        results.figures[f"search, {data.name}: of hnswlib at recall 0.97"] = ours / bare
    by_itself = next(point for point in own[SHARDS].points if point.setting == 1.0)
    results.figures[f"search, {data.name}: recall@10 of 65 shards"] = by_itself.recall


def _filters(
    data: DataSet, grouped: filters.Grouped, serving: ServedShards
) -> list[filters.Filtered]:
    echo_stderr(f"search, {data.name}: filters")
    index = peers.usearch_index(data.rows)
    cases = [(layout, share) for layout in filters.LAYOUTS for share in filters.SELECTIVITIES]
    return filters.measured(data, grouped, serving.snapshot(), index, cases)


def _filter_figures(data: str, found: Iterable[filters.Filtered]) -> dict[str, float]:
    of_data = [one for one in found if one.data == data]
    return {
        **{
            f"search, {data}, filters: lowest recall@10, {layout}": min(
                one.recall for one in of_data if one.layout == layout
            )
            for layout in filters.LAYOUTS
        },
        f"search, {data}, filters: queries with k hits": min(one.filled for one in of_data),
        **{
            f"search, {data}, filters: of USearch at 1 %, {one.layout}": one.times_faster
            for one in of_data
            if one.selectivity == 0.01
        },
    }


def _timed(serving: ServedShards, queries: Vectors) -> list[float]:
    """Return the milliseconds of each query."""
    took = []
    for query in queries:
        started = time.perf_counter()
        system.search(serving.snapshot(), query)
        took.append(1e3 * (time.perf_counter() - started))
    return took


def _compared_shards(
    data: DataSet, folder: Path, manifests: dict[int, list[Manifest]]
) -> dict[str, float]:
    """Compare 65 shards with one in turns, so that both have the same disturbances."""
    serving = {
        count: system.served(system.opened(folder / str(count), of_count))
        for count, of_count in manifests.items()
    }
    took: dict[int, list[float]] = {count: [] for count in serving}
    for _ in range(3):
        for count, one in serving.items():
            took[count] += _timed(one, data.queries)
    mean = {count: sum(of_count) / len(of_count) for count, of_count in took.items()}
    return {"search, in process: 65 shards, time": mean[SHARDS] / mean[1]}


def _while_arriving(data: DataSet, folder: Path, manifests: Sequence[Manifest]) -> dict[str, float]:
    """Compare searches while rows arrive with those after, over the same number of open rows."""
    growing = arriving.open_shard()
    serving = system.served([*system.opened(folder / str(SHARDS), manifests), growing])
    idle, busy = [], []
    for _ in range(3):
        with arriving.rows_arriving(growing):
            busy += _timed(serving, data.queries)
        idle += _timed(serving, data.queries)
    return {
        "search, in process: p99 with 500 rows/s": percentile(busy, 0.99) / percentile(idle, 0.99),
        "search, in process: queries with 500 rows/s": sum(idle) / sum(busy),
    }


def _hidden(data: DataSet, folder: Path, manifests: Sequence[Manifest]) -> dict[str, float]:
    figures = {}
    for share in HIDDEN_SHARES:
        shards = system.opened(folder / str(SHARDS), manifests)
        visible = system.hide_share(shards, share, seed=7)
        serving = system.served(shards)
        truth = exact(data.rows, data.queries, K, visible)
        point = _measured(share, serving, data.queries, truth)
        figures[f"search, in process: {share:.0%} hidden, p50"] = point.p50
        figures[f"search, in process: {share:.0%} hidden, recall@10"] = point.recall
    return figures


def _build(size: Size, data: DataSet, count: int, folder: Path) -> dict[str, float]:
    """Compare building a sealed shard's index with building USearch's, on all cores."""
    rows = data.rows[:count]
    part = DataSet(data.name, rows, data.queries)
    kind: IndexKind = prepared_kind(size.kind, rows)
    target = folder / "built"
    target.mkdir(parents=True)
    started = time.perf_counter()
    builder = kind.builder(DIMENSIONS)
    builder.add(rows)
    builder.write(target)
    own_seconds = time.perf_counter() - started
    index = kind.open(builder.spec, target)
    groups = np.arange(count, dtype=np.uint32)
    hits = index.search(data.queries, 10, allowed=None, group=groups, groups=count)
    started = time.perf_counter()
    usearch = peers.usearch_index(rows)
    usearch.save(str(folder / "built.usearch"))
    seconds = time.perf_counter() - started
    keys = np.asarray(usearch.search(data.queries, 10).keys).astype(np.int64)
    found = np.full((len(data.queries), 10), -1, np.int64)
    for number, of_query in enumerate(hits):
        found[number, : len(of_query.rows)] = of_query.rows
    return {
        "search: build of 100,000 rows": seconds / own_seconds,
        "search: recall@10 of that build": recall(found, part.nearest),
        "search: recall@10 of USearch's build": recall(keys, part.nearest),
    }


async def _resident(data: DataSet, folder: Path) -> dict[str, float]:
    queries = folder / "queries.npy"
    np.save(queries, data.queries)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.search.resident", str(folder / str(SHARDS)), str(queries)),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"python -m bench.search.resident ended with {process.returncode}")
    anonymous, mapped, quantizers = json.loads(printed)
    return {
        "search: memory of a sealed row": anonymous + mapped,
        "search: of it, allocated": anonymous,
        "search: of it, mapped": mapped,
        "search: quantizers of the shards, a row": quantizers,
    }


async def _processes(size: Size, data: DataSet, folder: Path) -> dict[str, float]:
    """Search one shard and 65 through a router, alone and by many clients at a time."""
    requests = requests_of(data.queries)
    alone: dict[int, list[float]] = {}
    together: dict[int, float] = {}
    figures: dict[str, float] = {}
    for count in (1, SHARDS):
        echo_stderr(f"search: {count} shards through a router")
        async with running(folder / f"services-{count}", folder / str(count)) as processes:
            address = processes.router.grpc
            await search_together(address, requests, CLIENTS, size.seconds / 5)
            searched = await asyncio.to_thread(search_alone, address, requests, size.seconds)
            alone[count] = [1e3 * seconds for seconds in searched.took]
            together[count] = (
                await search_together(address, requests, CLIENTS, size.seconds)
            ).per_second
            found = found_by(searched.answers[: len(requests)])
            figures["search, router: recall@10"] = recall(found, data.nearest)
    figures |= await _router_while_arriving(size, requests, folder)
    return figures | {
        "search, router: alone p50": percentile(alone[SHARDS], 0.5),
        "search, router: alone p99": percentile(alone[SHARDS], 0.99),
        "search, router: 32 clients": together[SHARDS],
        "search, router: 65 shards, time alone": percentile(alone[SHARDS], 0.5)
        / percentile(alone[1], 0.5),
        "search, router: 65 shards, 32 clients": together[SHARDS] / together[1],
    }


async def _router_while_arriving(
    size: Size, requests: Sequence[bytes], folder: Path
) -> dict[str, float]:
    """Compare searches of 65 shards and an indexer while it indexes with those while it does not."""
    echo_stderr(f"search: {SHARDS} shards and an indexer through a router")
    shards, seconds = folder / str(SHARDS), size.seconds / 2
    took: dict[bool, list[float]] = {False: [], True: []}
    together: dict[bool, list[float]] = {False: [], True: []}
    async with running(folder / "services-live", shards, live=True) as processes:
        address = processes.router.grpc
        await search_together(address, requests, CLIENTS, size.seconds / 5)
        for busy in (True, False) * 3:
            async with AsyncExitStack() as stack:
                if busy:
                    rate = arriving.ROWS_PER_SECOND
                    await stack.enter_async_context(vectors_arriving(processes.kafka, rate))
                alone = await asyncio.to_thread(search_alone, address, requests, seconds)
                took[busy] += alone.took
                by_many = await search_together(address, requests, CLIENTS, seconds)
                together[busy].append(by_many.per_second)
    return {
        "search, router: p99 with 500 rows/s": percentile(took[True], 0.99)
        / percentile(took[False], 0.99),
        "search, router: queries with 500 rows/s": sum(together[True]) / sum(together[False]),
    }
