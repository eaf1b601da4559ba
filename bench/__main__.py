"""Runs every benchmark several times, and prints medians and goals.

Those that need a running system share one; a choice that needs none starts none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from bench import (
    empty_calls,
    front_door,
    history,
    images,
    instrumentation,
    measures,
    page,
    photos,
    real_photos,
    replicas,
    rollouts,
    shards,
    stores,
)
from bench.figures import Figure, machine
from bench.search import measure as search_measure
from bench.workload import Workload, running
from shashin.errors import ShashinError
from shashin.local.system import System
from shashin.terminal.console import echo, echo_error, echo_stderr, echo_table

LISTINGS = 120
Measure = Callable[[Workload], Awaitable[dict[str, float]]]
MEASURES: dict[str, Measure] = {
    "memory": measures.idle_memory,
    "live": measures.vector_to_live,
    "freshness": measures.freshness,
    "queries": measures.photo_queries,
    "quiet": measures.quiet_photo_queries,
    "page": page.page,
    "throughput": measures.throughput,
    "gap": measures.gap,
}
"""They need a running system."""

ALONE: dict[str, Callable[[Path], Awaitable[dict[str, float]]]] = {
    "row": measures.live_row_memory,
    "photos": photos.photos,
    "real": real_photos.real_photos,
    "folder": stores.folder,
    "s3": stores.s3,
    "gcs": stores.gcs,
    "compaction": shards.compaction,
    "opening": shards.opening,
    "history": history.history,
    "images": images.images,
    "replicas": replicas.replicas,
    "rollouts": rollouts.rollouts,
    "instrumentation": instrumentation.instrumentation,
    "calls": empty_calls.empty_calls,
    "front": front_door.front_door,
    "search": search_measure.search,
}
"""They get an empty folder on the disk of the state folder."""

ONCE = ("memory", "row", "compaction", "history", "rollouts", "search")
"""Measured in the first run only: idle is before the first load, rows are always the same, and the
others take minutes, or repeat what they measure themselves."""


def planned_figures() -> list[Figure]:
    """Return every figure with its goal, before any measurement."""
    return [
        Figure("start, Kafka's jars cached", "s"),
        Figure("memory, idle", "GB", 2.5),
        Figure("memory, a live row", "bytes", 600.0),
        Figure("freshness p50", "s", 0.5),
        Figure("freshness p99", "s", 2.0),
        Figure("vector appended to found live p50", "ms"),
        Figure("vector appended to found live p99", "ms", 50.0),
        Figure("pipeline throughput", "photos/s", 60.0, at_least=True),
        Figure("coverage gap noticed", "s", 1.0),
        Figure("search by photo under ingest p50", "ms"),
        Figure("search by photo under ingest p99", "ms", 150.0),
        Figure("search by photo, 5 a second, p50", "ms"),
        Figure("search by photo, 5 a second, p99", "ms", 100.0),
        Figure("page: first view, newest listings painted", "s", 1.0),
        Figure("page: a photo dropped, hits painted p50", "ms", 300.0),
        Figure("page: a photo dropped, hits painted p90", "ms"),
        *photos.planned_figures().values(),
        *real_photos.planned_figures(),
        Figure("upload to a folder", "of cp", 0.5, at_least=True),
        Figure("upload to a folder, on the disk", "of cp and sync", 0.5, at_least=True),
        Figure("download from a folder", "of cp", 0.5, at_least=True),
        Figure("upload to S3, local server", "MB/s"),
        Figure("download from S3, local server", "MB/s"),
        Figure("upload to GCS, local server", "MB/s"),
        Figure("download from GCS, local server", "MB/s"),
        *(
            Figure(f"memory, 500 MB to {kind} and back", "MB", 64.0)
            for kind in ("a folder", "S3", "GCS")
        ),
        Figure("merge of 24 shards of 20,000 rows", "of USearch", 0.5),
        Figure("memory of that merge", "of the result", 2.0),
        Figure("memory of that merge, with mapped files", "of the result"),
        Figure("recall@10 of the merged shard", "", 0.98, at_least=True),
        Figure("open a tier of 65 shards of 10,000 rows", "s", 1.0),
        Figure("open a tier of 65 shards of 500,000 rows", "s", 1.0),
        Figure("append 100,000 rows to an image and push it", "s", 3.0),
        Figure("memory of that push", "MB", 100.0),
        Figure("query with two replicas p50", "ms"),
        Figure("query with two replicas p99", "ms"),
        Figure("query in the second after one is killed p50", "ms"),
        Figure("query in the second after one is killed p99", "ms"),
        Figure("query with the replica that is left p50", "ms"),
        Figure("query with the replica that is left p99", "ms"),
        Figure("p99 above twice the usual, after one is killed", "s", 1.0),
        Figure("queries failed or incomplete, after one is killed", "", 0.0),
        Figure("sealed to served on Kubernetes p50", "s", 5.0),
        Figure("sealed to served on Kubernetes p99", "s", 15.0),
        Figure("sealed to served by every pod p50", "s"),
        *(Figure(f"of it, {step}", "s") for step in rollouts.STEPS),
        Figure("query before rollovers p99", "ms"),
        Figure("query during 24 rollovers p99", "ms"),
        Figure("p99 during rollovers", "of before", 1.5),
        Figure("queries failed or incomplete in 24 rollovers", "", 0.0),
        *history.planned_figures(),
        *instrumentation.planned_figures(),
        *empty_calls.planned_figures(),
        *front_door.planned_figures(),
        *search_measure.planned_figures(),
    ]


Figures = Mapping[str, Figure]


async def measure_alone(figures: Figures, chosen: Sequence[str], runs: int, scratch: Path) -> None:
    """Run the chosen benchmarks that need no system."""
    for name in chosen:
        for run in range(1, 2 if name in ONCE else runs + 1):
            echo_stderr(f"run {run} of {runs}: {name}")
            with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=scratch) as folder:
                for quantity, value in (await ALONE[name](Path(folder))).items():
                    figures[quantity].runs.append(value)


async def measure(system: System, figures: Figures, chosen: Sequence[str], runs: int) -> None:
    """Start the system, and run the chosen benchmarks in rounds."""
    async with running(system, listings=LISTINGS) as workload:
        figures["start, Kafka's jars cached"].runs.append(workload.start_seconds)
        for run in range(1, runs + 1):
            for name in chosen:
                if name in ONCE and run > 1:
                    continue
                echo_stderr(f"run {run} of {runs}: {name}")
                for quantity, value in (await MEASURES[name](workload)).items():
                    figures[quantity].runs.append(value)
                await workload.clear()


def main() -> int:
    """Measure, print and write the figures; returns the exit code: 1 if a goal is missed."""
    names = [*MEASURES, *ALONE]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--state", type=Path, default=Path(".shashin/bench"))
    args = parser.parse_args()
    scratch = args.state.resolve()
    planned = {figure.name: figure for figure in planned_figures()}

    async def fresh_run() -> None:
        system = System(args.state)
        await system.stop()
        shutil.rmtree(system.folder, ignore_errors=True)
        scratch.mkdir(parents=True, exist_ok=True)
        alone = [name for name in args.only if name in ALONE]
        await measure_alone(planned, alone, args.runs, scratch)
        in_system = [name for name in args.only if name in MEASURES]
        if in_system:
            await measure(system, planned, in_system, args.runs)

    try:
        asyncio.run(fresh_run())
    except ShashinError as error:
        echo_error(error.message)
        return 1
    figures = [figure for figure in planned.values() if figure.runs]
    echo_table(["", ">median", ">min to max", "goal", "met"], [f.row() for f in figures])
    echo(machine())
    if args.json:
        document = {
            "command": " ".join(["python -m bench", *sys.argv[1:]]),
            "cores": os.cpu_count(),
            "figures": [figure.document() for figure in figures],
        }
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return int(any(figure.reached is False for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
