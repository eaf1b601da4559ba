"""An indexer on a machine that differs: its clock is ahead, or its index files have other bytes.

``python -m tests.chaos.odd_indexer [--clock-ahead SECONDS] [--other-bytes]`` is
``python -m services.indexer`` otherwise.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import time

from shashin.shards.kinds import usearch_hnsw


def main() -> None:
    """Change this process, then run the service."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.odd_indexer")
    parser.add_argument("--clock-ahead", type=float, default=0.0)
    parser.add_argument("--other-bytes", action="store_true")
    args = parser.parse_args()
    if args.clock_ahead:
        right = time.time
        time.time = lambda: right() + args.clock_ahead
    if args.other_bytes:
        # As another CPU does: the same rows, another graph.
        usearch_hnsw.KIND = usearch_hnsw.UsearchHnsw(expansion_add=40)
        # Codes follow from the vectors alone: another kind has other bytes in any case.
        os.environ["SHASHIN_SEALED_INDEX_KIND"] = "usearch-hnsw"
    sys.argv = ["services.indexer"]
    runpy.run_module("services.indexer", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
