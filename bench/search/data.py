"""The vectors that searches are measured with, their queries, and what exact search finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

DIMENSIONS = 128
K = 10

_ROWS_PER_CLUSTER = 100
_CLUSTER_NOISE = 0.7
_INTRINSIC_DIMENSIONS = 32
_OUTSIDE = 0.02
_BLOCK = 16_384

Vectors = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DataSet:
    """Rows and queries of the same distribution; no query is a row."""

    name: str
    rows: Vectors
    """(n, 128), unit length."""
    queries: Vectors
    """(m, 128), unit length."""

    @cached_property
    def nearest(self) -> Numbers:
        """The nearest rows of each query by exact search, (m, 10), nearest first."""
        return exact(self.rows, self.queries, K)


def made(name: str, rows: int, queries: int) -> DataSet:
    """Return the data set ``easy`` or ``hard``; the same arguments make the same one.

    ``easy`` has a cluster for each hundred rows, as photos of similar products have. ``hard`` has no
    clusters, and 32 dimensions that matter.
    """
    rng = np.random.default_rng(17)
    count = rows + queries
    if name == "easy":
        centres = rng.standard_normal((max(1, rows // _ROWS_PER_CLUSTER), DIMENSIONS), np.float32)
        drawn = centres[rng.integers(len(centres), size=count)]
        drawn += np.float32(_CLUSTER_NOISE) * rng.standard_normal((count, DIMENSIONS), np.float32)
    elif name == "hard":
        basis, _ = np.linalg.qr(rng.standard_normal((DIMENSIONS, _INTRINSIC_DIMENSIONS)))
        inside = rng.standard_normal((count, _INTRINSIC_DIMENSIONS), np.float32)
        drawn = inside @ basis.T.astype(np.float32)
        drawn += np.float32(_OUTSIDE) * rng.standard_normal((count, DIMENSIONS), np.float32)
    else:
        raise ValueError(f"no data set is named {name!r}: expected easy or hard")
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return DataSet(name, drawn[:rows], drawn[rows:])


def exact(
    rows: Vectors, queries: Vectors, k: int, allowed: npt.NDArray[np.bool_] | None = None
) -> Numbers:
    """Return the nearest allowed rows of each query, (m, k), nearest first; -1 where there are fewer.

    ``allowed`` is a mask of the rows, (n,), the same for all queries.
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    for block in _blocks(len(rows)):
        scores = queries @ rows[block].T
        if allowed is not None:
            scores[:, ~allowed[block]] = -np.inf
        numbers = np.broadcast_to(np.arange(block.start, block.stop), scores.shape)
        joined = np.concatenate([best, scores], axis=1)
        joined_numbers = np.concatenate([found, numbers], axis=1)
        order = np.argpartition(-joined, k - 1, axis=1)[:, :k]
        best = np.take_along_axis(joined, order, axis=1)
        found = np.take_along_axis(joined_numbers, order, axis=1)
    found[np.isneginf(best)] = -1
    return np.take_along_axis(found, np.argsort(-best, axis=1, kind="stable"), axis=1)


def recall(found: Numbers, expected: Numbers) -> float:
    """Return the share of the expected rows that were found; -1 is no row."""
    right = wanted = 0
    for of_query, of_truth in zip(found.tolist(), expected.tolist(), strict=True):
        truth = {row for row in of_truth if row >= 0}
        right += len(truth.intersection(of_query))
        wanted += len(truth)
    return right / wanted if wanted else 1.0


def unit(vectors: Vectors) -> Vectors:
    """Return vectors scaled to unit length."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))
