"""Measures searches alone, of any size: ``python -m bench.search --rows 20000 --parts curves``."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import tempfile
from pathlib import Path

from bench.search.measure import KIND, PARTS, QUERIES, ROWS, Size, measured, planned_figures, report
from bench.search.peers import LIBRARIES
from shashin.shards.kinds.names import MODULES
from shashin.terminal.console import echo_table


def main() -> None:
    """Measure, print, and write ``search.json`` and ``search.svg``."""
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--kind", choices=MODULES, default=KIND)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load of a router")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--peers", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to")
    parser.add_argument("--scratch", type=Path, help="folder on the disk to measure on")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    size = Size(args.rows, args.queries, args.kind, args.seconds, args.parts, args.peers)
    with tempfile.TemporaryDirectory(prefix="shashin-search-", dir=args.scratch) as folder:
        results = asyncio.run(measured(size, Path(folder)))
    report(results, args.out)
    figures = [
        dataclasses.replace(figure, runs=[results.figures[figure.name]])
        for figure in planned_figures()
        if figure.name in results.figures
    ]
    echo_table(["", ">median", ">min to max", "goal", "met"], [f.row() for f in figures])


if __name__ == "__main__":
    main()
