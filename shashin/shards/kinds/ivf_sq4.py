"""``ivf-sq4``: 4-bit codes in the lists of the model's quantizer, and float16 vectors to compare exactly.

An inverted file over the residuals of a coarse quantizer (Jégou et al. 2011) with scalar codes after a
rotation (Gao and Long 2024). A row has 96 bytes of codes at 128 dimensions, of which a search reads
20 of most rows; the vectors of the few best are read from the mapped file. Indexes of one quantizer are
searched together, in one call (``shashin.shards.kinds.stack``).

How many lists a search reads is measured when the index is written, and stored in its parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shashin.errors import CorruptShard, UnknownFormat
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds.native import library
from shashin.shards.kinds.native.library import Codes, Lists, Member, Run, Searcher
from shashin.shards.kinds.npy_file import drop_pages, map_array, write_array
from shashin.shards.kinds.protocol import Groups, GrowingIndex, Mask, Neighbours, Stack, Vectors
from shashin.shards.kinds.quantizer import Quantizer, blocks, is_too_coarse, lists_for, train, unit

NAME = "ivf-sq4"
METRIC = "ip"
STORED_TYPE = "f16"

VECTORS_FILE = "vectors.npy"
"""(n, dimensions) float16, in the order of rows."""
CODES_FILE = "codes.npy"
"""(n, code bytes) uint8, list by list."""
SCALES_FILE = "scales.npy"
"""(n,) float32, list by list."""
SIGNS_FILE = "signs.npy"
"""(n, sign words) uint64, list by list: a bit is 1 if its component is positive."""
SIGN_SCALES_FILE = "sign-scales.npy"
"""(n,) float32, list by list."""
ROWS_FILE = "list-rows.npy"
"""(n,) uint32: the row of each code; ascending within a list."""
STARTS_FILE = "starts.npy"
"""(lists + 1,) uint32: where each list starts."""
QUANTIZER_FILE = "quantizer.npy"
"""(lists, dimensions) float32; there is no such file if there is one list."""

STORED = np.dtype("<f2")
_CODE = np.dtype("u1")
_WORD = np.dtype("<u8")
_SCALE = np.dtype("<f4")
_NUMBER = np.dtype("<u4")

_EXACT_ROWS = 4_000
"""Up to so many allowed rows, all of them are compared."""

_SAMPLE = 128
"""Rows used as queries to measure how many lists a search has to read."""

_QUERY_NOISE = 0.5
"""Length of the noise that is added to a unit-length row to make it a query."""

_TARGET_RECALL = 0.995
"""Of the 10 nearest rows, as far as it depends on the lists."""

_CANDIDATES_PER_HIT = 4
_LEAST_CANDIDATES = 48


@dataclass(frozen=True)
class IvfSq4:
    """The kind. Its builders use ``quantizer``, or one list without one."""

    quantizer: Quantizer | None = None
    trains: bool = False

    @property
    def name(self) -> str:
        """Its name in manifests."""
        return NAME

    def with_quantizer(self, quantizer: Quantizer) -> IvfSq4:
        """Return the kind for indexes of this quantizer."""
        return replace(self, quantizer=quantizer)

    def training(self) -> IvfSq4:
        """Return the kind whose builders train a quantizer if theirs is too coarse for their rows."""
        return replace(self, trains=True)

    def builder(self, dimensions: int) -> IvfSq4Builder:
        """Return an empty index to build and write."""
        return IvfSq4Builder(self.quantizer or Quantizer.flat(dimensions), trains=self.trains)

    def growing(self, dimensions: int) -> GrowingIndex:
        """Return an empty index that can be searched while it grows."""
        from shashin.shards.kinds.growing_sq4 import GrowingSq4Index  # it imports this module

        return GrowingSq4Index(self, dimensions)

    def open(self, spec: IndexSpec, folder: Path) -> IvfSq4Index:
        """Map a written index into memory, read-only."""
        parameters = dict(spec.parameters)
        lists, probes = parameters.pop("lists", 0), parameters.pop("probes", 0)
        if (spec.metric, spec.stored_type) != (METRIC, STORED_TYPE):
            raise UnknownFormat(
                f"the index in {folder} is of kind {spec}; this version reads "
                f"{NAME} {METRIC} {STORED_TYPE}: upgrade the reader or rebuild the shard"
            )
        if parameters or not 1 <= probes <= lists <= np.iinfo(_NUMBER).max:
            raise UnknownFormat(
                f"the index in {folder} has parameters {dict(spec.parameters)}; expected lists and "
                "probes, 1 <= probes <= lists: upgrade the reader or rebuild the shard"
            )
        holds = f"float16 vectors of {spec.dimensions} dimensions"
        vectors = map_array(folder / VECTORS_FILE, STORED, spec.dimensions, holds=holds)
        count = len(vectors)

        def mapped(
            name: str, dtype: np.dtype[Any], columns: int | None, holds: str, expected: int = count
        ) -> npt.NDArray[Any]:
            return map_array(folder / name, dtype, columns, holds=holds, expected=expected)

        width, words = library.code_bytes(spec.dimensions), library.sign_words(spec.dimensions)
        codes = mapped(CODES_FILE, _CODE, width, f"codes of {width} bytes")
        scales = mapped(SCALES_FILE, _SCALE, None, "scales")
        signs = mapped(SIGNS_FILE, _WORD, words, f"signs of {words} words")
        sign_scales = mapped(SIGN_SCALES_FILE, _SCALE, None, "scales of signs")
        rows = mapped(ROWS_FILE, _NUMBER, None, "row numbers")
        starts = mapped(STARTS_FILE, _NUMBER, None, "starts of lists", lists + 1)
        # What a search would read out of bounds.
        if starts[0] != 0 or starts[-1] != count or (starts[1:] < starts[:-1]).any():
            raise CorruptShard(f"{folder / STARTS_FILE} does not divide {count} rows into lists")
        if count and rows.max() >= count:
            raise CorruptShard(f"{folder / ROWS_FILE} has row {rows.max()} of {count}")
        quantizer = Quantizer.flat(spec.dimensions)
        if lists > 1:
            quantizer = Quantizer.open(folder / QUANTIZER_FILE, spec.dimensions, lists=lists)
        return IvfSq4Index(
            quantizer, vectors, Run(starts, codes, scales, signs, sign_scales, rows, probes)
        )


class IvfSq4Index:
    """A written index, mapped into memory."""

    memory_bytes = 0

    def __init__(self, quantizer: Quantizer, stored: npt.NDArray[np.float16], run: Run) -> None:
        self.quantizer = quantizer
        self.stored = stored
        """(n, dimensions), in the order of rows."""
        self.run = run
        """The codes, list by list."""

    def __len__(self) -> int:
        return len(self.stored)

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None, group: Groups, groups: int
    ) -> list[Neighbours]:
        """Return the nearest allowed row of each of up to ``k`` groups, for each query."""
        return search_alone(
            self.quantizer,
            self.run,
            self.stored,
            queries,
            k,
            allowed=allowed,
            group=group,
            groups=groups,
        )

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys, (len(keys), dimensions) float32."""
        return self.stored[keys].astype(np.float32)

    def drop_vectors(self) -> None:
        """Give the memory of vectors that were read back to the system; they can be read again."""
        drop_pages(self.stored)

    def empty_stack(self) -> Stack:
        """Return a stack without members for indexes of this quantizer."""
        return empty_stack(self.quantizer)


def empty_stack(quantizer: Quantizer) -> Stack:
    """Return a stack without members for indexes of a quantizer."""
    from shashin.shards.kinds.stack import IvfSq4Stack  # it imports this module

    return IvfSq4Stack(quantizer)


def search_alone(
    quantizer: Quantizer,
    run: Run,
    stored: npt.NDArray[np.float16],
    queries: Vectors,
    k: int,
    *,
    allowed: Mask | None,
    group: Groups,
    groups: int,
) -> list[Neighbours]:
    """Search one run, of rows with the vectors ``stored``; otherwise as ``SearchableIndex.search``."""
    flags = np.ones(len(stored), np.uint8)
    flags[: len(group)] = 0 if allowed is None else ~allowed
    whole = np.zeros(len(stored), np.uint32)
    whole[: len(group)] = group
    searcher = Searcher(lists_of(quantizer), [run], [Member(stored, flags, whole)])
    count = len(flags) - int(np.count_nonzero(flags))
    k = min(k, count)
    if k == 0:
        empty = Neighbours(np.zeros(0, np.int64), np.zeros(0, np.float32))
        return [empty] * len(queries)
    rows_per_group = max(1.0, len(group) / max(1, groups))
    candidates = candidates_for(k, rows_per_group)
    if count <= _EXACT_ROWS:
        found = searcher.search_exactly(queries, k, candidates=candidates)
    else:
        factor = probes_factor(k, rows_per_group)
        found = searcher.search(
            queries, k, candidates=candidates, factor=factor, filtered=count < len(stored)
        )
    return [
        Neighbours(rows[:n].astype(np.int64), scores[:n])
        for rows, scores, n in zip(found.rows, found.scores, found.counts, strict=True)
    ]


def candidates_for(k: int, rows_per_group: float) -> int:
    """Return how many rows are compared exactly, to find the best ``k`` groups."""
    return int(max(_LEAST_CANDIDATES, _CANDIDATES_PER_HIT * k * min(rows_per_group, 4.0)))


def probes_factor(k: int, rows_per_group: float) -> float:
    """Return by how much more lists are read than for the 10 nearest rows.

    The further the last of ``k`` hits is, the more lists it can be in: ``k`` hits are as far as ``k``
    times as many rows, if several belong to one group.
    """
    return float(max(1.0, (k * rows_per_group / 10) ** 0.5))


def lists_of(quantizer: Quantizer) -> Lists:
    """Return a quantizer as a search uses it."""
    return Lists(quantizer.rotation, quantizer.rotated)


class IvfSq4Builder:
    """Collects float16 vectors; codes are made when they are written."""

    def __init__(self, quantizer: Quantizer, *, trains: bool = False) -> None:
        self._quantizer = quantizer
        self._trains = trains
        self._parts: list[npt.NDArray[np.float16]] = []
        self._size = 0
        self._probes = 1

    @property
    def spec(self) -> IndexSpec:
        """The index's description for the manifest; of probes once it is written."""
        parameters = {"lists": len(self._quantizer), "probes": self._probes}
        return IndexSpec(NAME, METRIC, STORED_TYPE, self._quantizer.dimensions, parameters)

    def __len__(self) -> int:
        return self._size

    def add(self, vectors: Vectors) -> None:
        """Append vectors (n, dimensions) under the next keys."""
        if len(vectors):
            self._parts.append(vectors.astype(STORED))
            self._size += len(vectors)

    @property
    def model_files(self) -> Sequence[str]:
        """The quantizer: shards of a model have few different ones."""
        return (QUANTIZER_FILE,) if len(self._quantizer) > 1 else ()

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the vectors of keys, (len(keys), dimensions) float32."""
        return self._joined()[keys].astype(np.float32)

    def write(self, folder: Path) -> Sequence[str]:
        """Write the files."""
        stored = self._joined()
        if self._trains and is_too_coarse(len(self._quantizer), len(stored)):
            self._quantizer = train(stored, lists_for(len(stored)))
        quantizer = self._quantizer
        write_array(folder / VECTORS_FILE, stored)
        of_row = quantizer.nearest_lists(stored)
        rows = np.argsort(of_row, kind="stable").astype(_NUMBER)
        starts = np.zeros(len(quantizer) + 1, dtype=_NUMBER)
        np.cumsum(np.bincount(of_row, minlength=len(quantizer)), out=starts[1:])
        codes = Codes.empty(len(stored), quantizer.dimensions)
        for block in blocks(len(stored)):
            of_block = rows[block]
            residuals: Vectors = stored[of_block] - quantizer.centroids[of_row[of_block]]
            codes.of(block).fill(residuals @ quantizer.rotation.T)
        write_array(folder / CODES_FILE, codes.codes)
        write_array(folder / SCALES_FILE, codes.scales)
        write_array(folder / SIGNS_FILE, codes.signs)
        write_array(folder / SIGN_SCALES_FILE, codes.sign_scales)
        write_array(folder / ROWS_FILE, rows)
        write_array(folder / STARTS_FILE, starts)
        names = [VECTORS_FILE, CODES_FILE, SCALES_FILE, SIGNS_FILE, SIGN_SCALES_FILE]
        names += [ROWS_FILE, STARTS_FILE]
        if len(quantizer) > 1:
            quantizer.write(folder / QUANTIZER_FILE)
            names.append(QUANTIZER_FILE)
            run = Run(
                starts, codes.codes, codes.scales, codes.signs, codes.sign_scales, rows, probes=1
            )
            self._probes = probes_needed(quantizer, run, [stored])
        return names

    def _joined(self) -> npt.NDArray[np.float16]:
        """Return all vectors as one array, and drop the parts one by one meanwhile."""
        if len(self._parts) == 1:
            return self._parts[0]
        joined = np.empty((self._size, self._quantizer.dimensions), dtype=STORED)
        end = self._size
        while self._parts:
            part = self._parts.pop()
            joined[end - len(part) : end] = part
            end -= len(part)
        self._parts = [joined]
        return joined


def probes_needed(quantizer: Quantizer, run: Run, stored: Sequence[npt.NDArray[np.float16]]) -> int:
    """Return how many lists of a run have to be read for the 10 nearest rows of a query.

    ``stored`` are the vectors of its members. Queries are rows of them with noise: a photo that is
    searched for resembles a stored one, and is none.
    """
    if len(quantizer) == 1 or len(run) == 0:
        return 1
    assert run.rows is not None
    rng = np.random.default_rng(1)
    at = np.sort(rng.choice(len(run), min(_SAMPLE, len(run)), replace=False))
    of_member = np.zeros(len(at), np.int64) if run.members is None else run.members[at]
    sample = np.stack(
        [stored[member][row] for member, row in zip(of_member, run.rows[at], strict=True)]
    ).astype(np.float32)
    noise = unit(rng.standard_normal(sample.shape).astype(np.float32))
    queries = unit(sample + np.float32(_QUERY_NOISE) * noise)
    members = [
        Member(vectors, np.zeros(len(vectors), np.uint8), np.arange(len(vectors), dtype=np.uint32))
        for vectors in stored
    ]
    ranks = library.list_ranks(
        lists_of(quantizer), run, members, queries, 10, candidates=candidates_for(10, 1.0)
    )
    ranks.sort()
    return int(ranks[int(np.ceil(_TARGET_RECALL * len(ranks))) - 1])


KIND = IvfSq4()
