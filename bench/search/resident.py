"""Prints the resident bytes of one sealed row, measured in a process of its own.

``python -m bench.search.resident FOLDER QUERIES``: opens the shards of a folder, searches all queries of
a file, and prints a list of three numbers of bytes a row: what the process has allocated for it
(``RssAnon``), the resident pages of the mapped codes, scales, row numbers and starts, and those of the
shards' copies of the quantizer, which do not grow with a shard. Pages of vectors and of rows are not
counted: a query reads a few of them, and the system drops them when memory is short.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np

from bench.search import system
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest
from shashin.shards.kinds import ivf_sq4

CODES = frozenset(
    {
        ivf_sq4.CODES_FILE,
        ivf_sq4.SCALES_FILE,
        ivf_sq4.SIGNS_FILE,
        ivf_sq4.SIGN_SCALES_FILE,
        ivf_sq4.ROWS_FILE,
        ivf_sq4.STARTS_FILE,
    }
)
"""The files that every search reads."""

_STATUS = Path("/proc/self/status")
_MAPS = Path("/proc/self/smaps")


def allocated() -> int:
    """Return the anonymous resident bytes of this process."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no RssAnon in {_STATUS}")


def mapped(folder: Path, maps: str, names: Collection[str]) -> int:
    """Return the resident bytes of the mapped files of such names in a folder, from its smaps."""
    total, counted = 0, False
    for line in maps.splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            path = Path(rest[-1]) if len(rest) >= 5 else Path()
            counted = path.is_relative_to(folder) and path.name in names
        elif first == "Rss:" and counted:
            total += int(rest[0]) * 1024
    return total


def main() -> None:
    """Measure and print."""
    folder, queries = Path(sys.argv[1]).resolve(), np.load(sys.argv[2])
    manifests = [
        Manifest.from_copy(path.read_bytes(), path=str(path), shard_id=path.parent.name)
        for path in sorted(folder.glob(f"*/{MANIFEST_FILE}"))
    ]
    # Whatever the first search allocates once, such as numpy's own, is not the shards'.
    warm = system.served(system.opened(folder, manifests[:1]))
    system.search(warm.snapshot(), queries[0])
    del warm
    gc.collect()
    before = allocated()
    serving = system.served(system.opened(folder, manifests))
    for query in queries:
        system.search(serving.snapshot(), query)
    gc.collect()
    rows = sum(manifest.rows for manifest in manifests)
    maps = _MAPS.read_text(encoding="utf-8")
    counted = (
        allocated() - before,
        mapped(folder, maps, CODES),
        mapped(folder, maps, {ivf_sq4.QUANTIZER_FILE}),
    )
    print(json.dumps([size / rows for size in counted]))


if __name__ == "__main__":
    main()
