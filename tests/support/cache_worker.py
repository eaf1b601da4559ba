"""A process that uses a cache of originals: ``python -m tests.support.cache_worker MODE FOLDER``."""

from __future__ import annotations

import hashlib
import random
import sys
import time
from pathlib import Path

from shashin.originals import Original, OriginalsCache, SourceVersion
from shashin.runtime import failpoints

URIS = [f"https://img.example.com/{number}.jpg" for number in range(40)]
MAX_BYTES = 400_000
"""Room for about half of the photos."""


def photo(uri: str, edition: int = 0) -> bytes:
    """Return the only bytes that an edition of a photo may have."""
    seed = hashlib.sha256(f"{uri} {edition}".encode()).digest()
    return seed * (100 + seed[0] * 3)


def editions(uri: str) -> list[bytes]:
    """Return all bytes that a photo ever has."""
    return [photo(uri, edition) for edition in range(3)]


def open_cache(folder: Path) -> OriginalsCache:
    """Open the cache that all workers share."""
    return OriginalsCache(folder, max_bytes=MAX_BYTES, keep_seconds=3600.0)


def store(cache: OriginalsCache, uri: str, edition: int = 0) -> bool:
    """Store an edition of a photo."""
    data = photo(uri, edition)
    return cache.store(uri, Original(data, hashlib.sha256(data).digest()), SourceVersion())


def hammer(cache: OriginalsCache, seconds: float, seed: int) -> str:
    """Store, read, forget and prune at random; returns the first wrong photo, if there is any."""
    rng, ends = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < ends:
        uri = rng.choice(URIS)
        found = cache.cached(uri)
        if found is not None and found.data not in editions(uri):
            return f"{uri}: {len(found.data)} wrong bytes"
        action = rng.random()
        if found is None or action < 0.1:
            if not store(cache, uri, rng.randrange(3)):
                return f"{uri}: {cache.problem}"
        elif action < 0.15:
            cache.forget(uri)
        elif action < 0.2:
            cache.prune()
    return ""


def main() -> None:
    """Hammer a cache for some seconds, or store until a failpoint kills this process."""
    mode, folder, seconds, seed = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    failpoints.enable("downloader")
    cache = open_cache(folder)
    if mode == "hammer":
        sys.exit(hammer(cache, float(seconds), int(seed)) or 0)
    for uri in URIS:
        store(cache, uri, 1)
    sys.exit("no failpoint was reached")


if __name__ == "__main__":
    main()
