"""``make chaos``: kills every service at every failpoint, and checks that nothing is lost.

Meanwhile there are two more indexers of the same partitions (one with its clock 5 minutes ahead, one
that writes other bytes), a producer of another client library with every codec and with
transactions, a broker that deletes what was read, services that hang for 40 seconds each, a restart
of the broker, a manifest that becomes unreadable while an indexer starts, and builds that merge
shards and are killed now and then. Whatever of these does not happen counts as a coverage gap: the
run has not covered it.

Prints progress, the problems found, and last ``chaos: K kills, N listings, L lost,
D duplicated, R resurrected, G coverage gaps``; exits with 1 unless the last four are 0.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from shashin.errors import ShashinError
from shashin.terminal.console import echo, echo_error, echo_stderr
from shashin.terminal.run import run
from tests.chaos.run import Chaos, first_of, play


def main() -> int:
    """Run and judge; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer events and kills")
    parser.add_argument("--events", type=int, help="listing events streamed")
    parser.add_argument("--kills", type=int, help="processes killed, each at a failpoint")
    parser.add_argument("--rate", type=float, default=40.0, help="events per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path, default=Path(".shashin/chaos"))
    args = parser.parse_args()
    state = (args.state / time.strftime("%Y%m%d-%H%M%S")).absolute()
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    chaos = Chaos(
        events=args.events or (2_000 if args.quick else 10_000),
        kills=args.kills or (14 if args.quick else 44),
        rate=args.rate,
        bucket_seconds=8,
        seed=args.seed,
        state=state,
        pauses_together=args.quick,
    )
    echo_stderr(
        f"seed {chaos.seed}: {chaos.events} events, {chaos.kills} kills, one restart of the broker"
    )
    try:
        outcome = run(play(chaos))
    except ShashinError as error:
        echo_error(f"{error.message}; logs are in {state}")
        return 1
    verdict = outcome.verdict
    for name, problems in (
        ("lost", verdict.lost),
        ("duplicated", verdict.duplicated),
        ("resurrected", verdict.resurrected),
    ):
        for line in first_of(problems):
            echo(f"{name}: {line}")
    for gap in verdict.gaps[:5]:
        echo(f"gap: {gap}")
    if outcome.never_killed_at and not args.quick:
        echo_stderr(f"failpoints without a kill: {', '.join(outcome.never_killed_at)}")
    if verdict.whole and outcome.kills >= chaos.kills:
        shutil.rmtree(state, ignore_errors=True)
    else:
        echo_stderr(f"logs are in {state}")
    echo_stderr(f"{outcome.seconds:.0f} s")
    echo(outcome.line)
    return 0 if verdict.whole and outcome.kills >= chaos.kills else 1


if __name__ == "__main__":
    sys.exit(main())
