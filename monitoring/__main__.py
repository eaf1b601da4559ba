"""Writes the rules and dashboards: ``python -m monitoring``; ``--check`` only compares them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from monitoring.boards import dashboard_files
from monitoring.rules import prometheus_rule, rule_file
from shashin.terminal.console import echo_error

ROOT = Path(__file__).parents[1]
DASHBOARDS = "monitoring/dashboards"


def generated() -> dict[Path, str]:
    """Return every file with its text."""
    return {
        ROOT / "monitoring/prometheus/rules/shashin.yml": rule_file(),
        ROOT / "k8s/components/prometheus/rules.yaml": prometheus_rule(),
        **{ROOT / DASHBOARDS / name: text for name, text in dashboard_files().items()},
    }


def main() -> int:
    """Write or compare; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m monitoring", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a file is not up to date")
    args = parser.parse_args()
    files = generated()
    foreign = set((ROOT / DASHBOARDS).glob("*.json")) - set(files)
    if args.check:
        outdated = [
            path for path, text in files.items() if not path.exists() or path.read_text() != text
        ]
        for path in sorted([*outdated, *foreign]):
            echo_error(f"{path.relative_to(ROOT)} is not up to date: run `make docs`")
        return 1 if outdated or foreign else 0
    for path in foreign:
        path.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
