"""What should be found: a dictionary of listings, and exact search over all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.year.calendar import Change

DIMENSIONS = 64
_CLUSTERS = 200

Vectors = npt.NDArray[np.float32]


def _unit(vectors: npt.NDArray[np.floating[Any]]) -> Vectors:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / norms, dtype=np.float32)


_CENTRES = _unit(np.random.default_rng(5).normal(size=(_CLUSTERS, DIMENSIONS)).astype(np.float32))


def photo_vector(listing_id: str, version: int, photo: int) -> Vectors:
    """Return the vector of a photo, (DIMENSIONS,), as float16 holds it: near one of the clusters."""
    seed = hashlib.blake2b(f"{listing_id}/{version}/{photo}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(seed, "little"))
    near = _CENTRES[rng.integers(_CLUSTERS)] + 0.8 * _unit(rng.normal(size=DIMENSIONS))
    return _unit(near).astype(np.float16).astype(np.float32)


class Truth:
    """The visible version of each listing, with its photos."""

    def __init__(self) -> None:
        self.visible: dict[str, tuple[int, int]] = {}
        """Listing to version and number of photos."""

    def apply(self, change: Change) -> None:
        """Note a change."""
        if change.kind == "hide":
            self.visible.pop(change.listing_id, None)
        else:
            self.visible[change.listing_id] = (change.version, change.photos)

    @property
    def rows(self) -> set[tuple[str, int, int]]:
        """Listing, version and photo number of every visible row."""
        return {
            (listing, version, photo)
            for listing, (version, photos) in self.visible.items()
            for photo in range(photos)
        }


def queries(truth: Truth, count: int) -> Vectors:
    """Return photos that resemble visible ones and are none of them, (count, DIMENSIONS)."""
    rng = np.random.default_rng(11)
    rows = sorted(truth.rows)
    chosen = [rows[n] for n in rng.choice(len(rows), min(count, len(rows)), replace=False)]
    near = np.stack([photo_vector(*row) for row in chosen])
    noise = _unit(rng.normal(size=near.shape).astype(np.float32))
    return _unit(near + 0.4 * noise)


class ExactSearch:
    """Brute force over all visible rows."""

    def __init__(self, truth: Truth) -> None:
        rows = sorted(truth.rows)
        self._listings = np.array([row[0] for row in rows])
        self._vectors = np.stack([photo_vector(*row) for row in rows])

    def tenth_score(self, query: Vectors, k: int = 10) -> tuple[int, float]:
        """Return how many listings the k nearest are, and the score of the last of them."""
        scores = self._vectors @ query
        best: dict[str, float] = {}
        for number in np.argsort(-scores)[: 30 * k]:
            best.setdefault(str(self._listings[number]), float(scores[number]))
            if len(best) == k:
                break
        return len(best), min(best.values())


def right_hits(
    found: Collection[tuple[str, int, int]], query: Vectors, least: float, tolerance: float
) -> int:
    """Return how many of the hits are as near as the last of the exact ones."""
    return sum(float(photo_vector(*hit) @ query) >= least - tolerance for hit in found)
