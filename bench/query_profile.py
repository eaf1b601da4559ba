"""Prints where the time of a query goes, from the router's socket to the last shard and back.

``python -m bench.query_profile --shards 65 --rows 260000``: a router and an index server run as
processes, and one client searches through them, one query after the other. Without a profiler it
measures what queries take, and what CPU time each process spends on one; then py-spy samples both
processes, and their stages get that CPU time in proportion to the samples.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.figures import machine, percentile
from bench.query_stages import ROUTER, SERVER, Stage, samples_by_stage
from bench.search.data import made
from bench.search.processes import Processes, requests_of, running, search_alone
from bench.search.sealed import prepared_kind, write_shards
from shashin.shards.kinds.names import MODULES
from shashin.v1 import search_pb2

QUERIES = 200
SAMPLES_PER_SECOND = 100
PY_SPY = Path(sys.executable).parent / "py-spy"
LEAST_SHARE = 0.005
"""Of the query; stages below it are one line."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    process: str
    stage: str
    milliseconds: float


@dataclass(frozen=True)
class Profile:
    """The times of one query, in milliseconds."""

    p50: float
    p99: float
    mean: float
    wall: dict[str, float]
    """Medians of the spans that the answers carry, each within the one before."""
    lines: list[Line]


async def measured(kind: str, shards: int, rows: int, seconds: float, scratch: Path) -> Profile:
    """Serve so many shards of a kind, search them, and profile both processes."""
    data = made("easy", rows, QUERIES)
    folder = scratch / "shards"
    await asyncio.to_thread(
        lambda: write_shards(folder, prepared_kind(kind, data.rows), data.rows, shards)
    )
    requests = requests_of(data.queries)
    async with running(scratch / "services", folder) as processes:
        address = processes.router.grpc
        await asyncio.to_thread(search_alone, address, requests, seconds / 4)
        searched_before = await _searched(processes)
        before = _cpu_seconds(processes)
        alone = await asyncio.to_thread(search_alone, address, requests, seconds)
        spent = [
            1e3 * (now - then) / len(alone.took)
            for now, then in zip(_cpu_seconds(processes), before, strict=True)
        ]
        searched = await _searched(processes)
        samples = await _samples(processes, requests, seconds, scratch)
    in_endpoint = (searched[0] - searched_before[0]) / (searched[1] - searched_before[1])
    spans = _spans(alone.answers) | {"endpoint: the whole search, mean": 1e3 * in_endpoint}
    lines = [
        Line(name, stage, spent_on * count / sum(counts.values()))
        for name, spent_on, counts in zip(("router", "endpoint"), spent, samples, strict=True)
        for stage, count in counts.items()
    ]
    took = [1e3 * one for one in alone.took]
    mean = statistics.fmean(took)
    lines.append(Line("", "client, sockets, and waiting for threads and locks", mean - sum(spent)))
    return Profile(percentile(took, 0.5), percentile(took, 0.99), mean, spans, lines)


def _cpu_seconds(processes: Processes) -> list[float]:
    return [
        sum(psutil.Process(service.process.pid).cpu_times()[:2])
        for service in (processes.router, processes.server)
    ]


async def _samples(
    processes: Processes, requests: Sequence[bytes], seconds: float, scratch: Path
) -> list[dict[str, int]]:
    """Sample one process after the other under the same queries; returns counts by stage."""
    counts = []
    profiled: Sequence[tuple[str, int, Sequence[Stage]]] = (
        ("router", processes.router.process.pid, ROUTER),
        ("endpoint", processes.server.process.pid, SERVER),
    )
    for name, pid, stages in profiled:
        raw = scratch / f"{name}.stacks"
        spy = await asyncio.create_subprocess_exec(
            *(str(PY_SPY), "record", "--native"),
            *("--format", "raw", "--rate", str(SAMPLES_PER_SECOND), "--pid", str(pid)),
            *("--duration", str(max(1, round(seconds))), "--output", str(raw)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        searching = asyncio.ensure_future(
            asyncio.to_thread(search_alone, processes.router.grpc, requests, seconds + 2)
        )
        _, errors = await spy.communicate()
        await searching
        if spy.returncode or not raw.exists():
            raise RuntimeError(f"py-spy failed on the {name}: {errors.decode(errors='replace')}")
        counts.append(samples_by_stage(raw.read_text().splitlines(), stages))
    return counts


def _spans(answers: Sequence[bytes]) -> dict[str, float]:
    timings = [search_pb2.SearchResponse.FromString(answer).timings for answer in answers]
    return {
        "router: the whole call, p50": 1e3 * statistics.median(t.total for t in timings),
        "router: fan-out, p50": 1e3 * statistics.median(t.fan_out for t in timings),
        "router: merge, p50": 1e3 * statistics.median(t.merge for t in timings),
    }


async def _searched(processes: Processes) -> tuple[float, float]:
    """Return the seconds that the endpoint has spent in searches so far, and how many there were."""
    name = "shashin_index_search_seconds"
    return (
        await processes.server.metric(f"{name}_sum"),
        await processes.server.metric(f"{name}_count"),
    )


def table(profile: Profile) -> str:
    """Return the profile as Markdown tables."""
    total = profile.mean
    shown = [line for line in profile.lines if line.milliseconds >= LEAST_SHARE * total]
    small = sum(line.milliseconds for line in profile.lines if line not in shown)
    shown.append(Line("", "all smaller ones", small))
    cells = [
        (line.process, line.stage, f"{line.milliseconds:.3f}", f"{line.milliseconds / total:.1%}")
        for line in shown
    ]
    cells.append(("", "**one query, mean**", f"**{total:.3f}**", "**100.0%**"))
    spans = [
        ("client: query, p50", f"{profile.p50:.3f}"),
        ("client: query, p99", f"{profile.p99:.3f}"),
        *((name, f"{value:.3f}") for name, value in profile.wall.items()),
    ]
    return "\n".join(
        [
            "| process | stage | ms | % |",
            "|---|---|---:|---:|",
            *(f"| {' | '.join(row)} |" for row in cells),
            "",
            "| span on the clock | ms |",
            "|---|---:|",
            *(f"| {' | '.join(row)} |" for row in spans),
        ]
    )


def main() -> None:
    """Profile, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.query_profile", description=__doc__)
    parser.add_argument("--shards", type=int, default=65)
    parser.add_argument("--rows", type=int, default=260_000)
    parser.add_argument("--kind", choices=MODULES, default=list(MODULES)[-1])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--keep", type=Path, help="keep the sampled stacks in this folder")
    args = parser.parse_args()
    if not PY_SPY.exists():
        parser.error(f"{PY_SPY} does not exist: run `make bench-peers`, which installs it")
    with tempfile.TemporaryDirectory(prefix="shashin-profile-") as folder:
        scratch = Path(folder)
        profile = asyncio.run(measured(args.kind, args.shards, args.rows, args.seconds, scratch))
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            for stacks in scratch.glob("*.stacks"):
                shutil.copy(stacks, args.keep)
    print(f"{args.shards} shards of kind {args.kind}, {args.rows:,} rows, one client,")
    print(f"{machine()}\n")
    print(table(profile))


if __name__ == "__main__":
    main()
