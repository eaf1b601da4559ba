"""``make year``: a year of listing events on a clock of its own, and what is left of it at the end.

Prints progress and last ``year: S shards, L lost, G ghosts, C coverage gaps, recall@10 R, repository X
of live data``; exits with 1 if one of these falls short.

- *S shards* is the most that were served at once, each time that everything due had been done; while
  a build is handed over, parents and child are both served.
- *lost* and *ghosts* are rows of the whole year, compared one by one at its end.
- *coverage gaps* are looked for after every step of every hand-over.
- *recall@10* counts a hit if it is as near as the last of the exact ones, up to what rounding vectors
  when they are sealed can change; the line before has the share without that allowance.
- *repository* is measured after pruning with nothing kept for a rollback; live data are the files of
  the shards that are served.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from shashin.runtime.logging import configure_logging
from shashin.terminal.console import echo, echo_stderr
from tests.support.fake_gcs import SERVER_VARIABLE
from tests.year.calendar import END, QUICK, Size, changes
from tests.year.installation import Installation
from tests.year.stores import STORES, opened_store
from tests.year.truth import ExactSearch, Truth, queries, right_hits

MAX_SHARDS = 65
MIN_RECALL = 0.98
MAX_REPOSITORY = 1.5
_TOLERANCE = 2 * 2**-9
"""Scores that differ by less may be in either order.

Indexers seal bfloat16, which changes a component by up to 2⁻⁹ of itself; builds store float16, from
those same rounded vectors. So a score of two unit vectors changes by up to 2⁻⁹, and two of them may
move towards each other.
"""
_ARITHMETIC = 1e-5
"""How much sums of 64 products differ by their order."""


async def play(folder: Path, size: Size, seed: int, kind: str) -> int:
    """Replay the year; returns the exit code."""
    truth = Truth()
    started = time.perf_counter()
    async with opened_store(kind, folder) as (store, uri):
        echo_stderr(f"repository {uri.split(':')[0]}://, local time {time.tzname[0]}")
        installation = Installation(folder / "work", store, uri)
        async with installation.running():
            month = None
            for hour, found in changes(size, seed):
                # The day before has been over for a while when something happens again.
                await installation.settle(hour)
                if (hour.year, hour.month) != month:
                    month = (hour.year, hour.month)
                    echo_stderr(
                        f"{time.perf_counter() - started:5.0f} s  {hour:%B %Y}: "
                        f"{len(truth.visible)} listings, {installation.peaks.builds} builds, "
                        f"{installation.peaks.shards} shards at most"
                    )
                for change in found:
                    truth.apply(change)
                    installation.apply(change)
                await installation.seal_what_is_idle(hour + timedelta(hours=1, minutes=2))
                await installation.settle(hour + timedelta(hours=1, minutes=5))
                if hour.day in {1, 28} and hour.hour == 23:
                    await installation.prune()
            await installation.settle(END - timedelta(minutes=1))
            await installation.prune()
            return await judge(installation, truth)


async def judge(installation: Installation, truth: Truth) -> int:
    """Compare what can be found with what should be; returns the exit code."""
    expected, found = truth.rows, installation.visible_rows()
    lost = sorted(expected - found.keys())
    ghosts = sorted(found.keys() - expected)
    twice = {row: tiers for row, tiers in found.items() if len(tiers) > 1}
    for name, rows in (("lost", lost), ("ghost", ghosts), ("found twice", sorted(twice))):
        for row in rows[:5]:
            echo(f"{name}: {row} {found.get(row, '')}")
    exact = ExactSearch(truth)
    right = strictly = wanted = 0
    for query in queries(truth, 300):
        count, least = exact.tenth_score(query)
        hits = installation.search(query)
        right += min(count, right_hits(hits, query, least, _TOLERANCE))
        strictly += min(count, right_hits(hits, query, least, _ARITHMETIC))
        wanted += count
    recall = right / wanted
    stored, live = await installation.sizes()
    shards = [len(server.shards) for server in installation.servers.values()]
    peaks = installation.peaks
    echo(
        f"{len(expected)} visible rows of {len(truth.visible)} listings; {shards[2]} monthly, "
        f"{shards[1]} daily, {shards[0]} hourly shards, {peaks.shards} at most; {peaks.builds} "
        f"builds, a vector was rewritten {peaks.rewrites} times at most; recall@10 without an allowance "
        f"for rounding {strictly / wanted:.3f}"
    )
    echo(
        f"year: {peaks.shards} shards, {len(lost)} lost, {len(ghosts)} ghosts, {peaks.gaps} coverage "
        f"gaps, recall@10 {recall:.3f}, repository {stored / live:.2f} of live data"
    )
    whole = not (lost or ghosts or twice or peaks.gaps)
    held = peaks.shards <= MAX_SHARDS and stored <= MAX_REPOSITORY * live
    return 0 if whole and held and recall >= MIN_RECALL else 1


def main() -> int:
    """Run and judge; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.year", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and days")
    parser.add_argument("--seed", type=int, default=1)
    default = "gs" if SERVER_VARIABLE in os.environ else "s3"
    parser.add_argument("--store", choices=STORES, default=default, help="the model repository")
    args = parser.parse_args()
    # Windows are in UTC, wherever the services run: here clocks are changed twice a year.
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    configure_logging("year", level="error", log_format="console")
    folder = Path(tempfile.mkdtemp(prefix="shashin-year-"))
    try:
        return asyncio.run(play(folder, QUICK if args.quick else Size(), args.seed, args.store))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
