"""Runs every benchmark several times in one system, and prints medians and goals."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bench import measures
from bench.figures import Figure
from bench.workload import Workload, start
from shashin.client.router import RouterClient
from shashin.errors import ShashinError
from shashin.kafka.producer import Producer
from shashin.local.system import System
from shashin.terminal.console import echo, echo_error, echo_stderr, echo_table

LISTINGS = 120
Measure = Callable[[Workload], Awaitable[dict[str, float]]]
MEASURES: dict[str, Measure] = {
    "memory": measures.idle_memory,
    "row": measures.live_row_memory,
    "live": measures.vector_to_live,
    "freshness": measures.freshness,
    "queries": measures.photo_queries,
    "throughput": measures.throughput,
    "gap": measures.gap,
}


ONCE = ("memory", "row")
"""Measured in the first run only: idle is before the first load, and rows are always the same."""


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
    ]


async def measure(system: System, chosen: Sequence[str], runs: int) -> list[Figure]:
    """Start the system, run the chosen benchmarks in rounds, and return the figures."""
    figures = {figure.name: figure for figure in planned_figures()}
    listings, start_seconds = await start(system, listings=LISTINGS)
    figures["start, Kafka's jars cached"].runs.append(start_seconds)
    async with (
        Producer(system.kafka_address(), client_id="bench") as producer,
        RouterClient(system.router_address()) as router,
    ):
        numbers = itertools.count(time.time_ns())
        workload = Workload(system, listings, producer, router, numbers)
        for run in range(1, runs + 1):
            for name in chosen:
                if name in ONCE and run > 1:
                    continue
                echo_stderr(f"run {run} of {runs}: {name}")
                for quantity, value in (await MEASURES[name](workload)).items():
                    figures[quantity].runs.append(value)
                await workload.clear()
    return [figure for figure in figures.values() if figure.runs]


def main() -> int:
    """Measure, print and write the figures; returns the exit code: 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--state", type=Path, default=Path(".shashin/bench"))
    args = parser.parse_args()
    system = System(args.state)

    async def fresh_run() -> list[Figure]:
        await system.stop()
        shutil.rmtree(system.folder, ignore_errors=True)
        try:
            return await measure(system, args.only, args.runs)
        finally:
            await system.stop()

    try:
        figures = asyncio.run(fresh_run())
    except ShashinError as error:
        echo_error(error.message)
        return 1
    echo_table(["", ">median", ">min to max", "goal", "met"], [f.row() for f in figures])
    echo(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
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
