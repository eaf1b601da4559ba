"""Fuzzes each target for a while: ``python -m tests.fuzz [--seconds 600] [TARGET ...]``.

Each runs in a process of its own, so that a crash of a decoder is found as well. What was found lies in
build/fuzz: inputs that led to new paths, and those that crashed, which later runs try first.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS

FOLDER = Path("build/fuzz")
_MEMORY_MB = 2048
_INPUT_SECONDS = 20


def main() -> None:
    """Fuzz the targets that were asked for, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="default: all")
    parser.add_argument("--seconds", type=int, default=600, help="of all targets together")
    args = parser.parse_args()
    names = args.targets or list(TARGETS)
    failed = [name for name in names if not _fuzzed(name, max(1, args.seconds // len(names)))]
    if failed:
        raise SystemExit(f"fuzz: {', '.join(failed)} failed; the inputs are in {FOLDER}")
    sys.stdout.write(f"fuzz: {len(names)} targets, nothing found\n")


def _fuzzed(name: str, seconds: int) -> bool:
    """Fuzz one target; returns whether it withstood."""
    corpus, crashes = FOLDER / name / "corpus", FOLDER / name / "crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    command = [
        *(sys.executable, "-m", "tests.fuzz.one", name, str(corpus), str(crashes)),
        *(f"-max_total_time={seconds}", f"-max_len={TARGETS[name].longest}"),
        *(f"-artifact_prefix={crashes}/", f"-rss_limit_mb={_MEMORY_MB}"),
        *(f"-timeout={_INPUT_SECONDS}", "-print_final_stats=1", "-verbosity=0"),
    ]
    started = time.monotonic()
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    took = time.monotonic() - started
    stats = dict(
        line.removeprefix("stat::").split(":", 1)
        for line in ended.stdout.splitlines()
        if line.startswith("stat::") and ":" in line.removeprefix("stat::")
    )
    inputs = int(stats.get("number_of_executed_units", "0"))
    outcome = "nothing found" if ended.returncode == 0 else "FAILED"
    sys.stdout.write(f"fuzz: {name:8} {inputs:9,} inputs in {took:.0f} s, {outcome}\n")
    sys.stdout.flush()
    if ended.returncode != 0:
        sys.stdout.write(ended.stdout[-5000:])
    return ended.returncode == 0 and inputs > 0


if __name__ == "__main__":
    main()
