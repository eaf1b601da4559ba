"""The libraries and databases that a search is compared with, as their users would use them.

Each is optional: ``make bench-peers`` installs them. One query at a time, one thread.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index

from bench.search.data import DIMENSIONS, K, Numbers, Vectors

CONNECTIVITY = 16
EXPANSION_ADD = 128
INSTALL = "`make bench-peers` installs them"

_EFS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_ROWS_PER_LIST = 39
"""What Faiss wants at least to train a list from."""
_REFINED = 10
"""Of how many times as many rows the vectors are compared, where codes are coarse."""
_CHROMA_BATCH = 5_000


@dataclass(frozen=True)
class Peer:
    """An index over the rows, ready to be searched."""

    name: str
    build_seconds: float
    knob: str
    """What trades recall for speed."""
    settings: Sequence[int]
    turn: Callable[[int], object]
    """Apply a setting."""
    search: Callable[[Vectors], Any]
    """Search for the 10 rows nearest to a query (128,); returns what the library does."""
    rows_of: Callable[[Any], Numbers]
    """Return the rows of such an answer."""
    few_queries: bool = False
    """Whether it is too slow for all queries."""


def built_peers(rows: Vectors, scratch: Path, chosen: Collection[str]) -> Iterator[Peer]:
    """Build one peer after the other over the rows, by library; those not installed are left out."""
    for libraries, builders in _BUILDERS:
        is_there = all(importlib.util.find_spec(library) for library in libraries)
        if libraries[0] in chosen and is_there:
            for build in builders:
                yield build(rows, scratch)


def missing(chosen: Collection[str]) -> list[str]:
    """Return the libraries that are not installed."""
    wanted = (
        library for libraries, _ in _BUILDERS for library in libraries if libraries[0] in chosen
    )
    return [library for library in wanted if importlib.util.find_spec(library) is None]


def usearch_index(rows: Vectors) -> Index:
    """Return a USearch HNSW index of the rows, built on all cores."""
    index = Index(
        ndim=DIMENSIONS,
        metric="ip",
        dtype="bf16",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
    )
    index.add(np.arange(len(rows), dtype=np.uint64), rows)
    return index


def _usearch(rows: Vectors, _scratch: Path) -> Peer:
    started = time.perf_counter()
    index: Any = usearch_index(rows)
    seconds = time.perf_counter() - started

    def turn(ef: int) -> None:
        index.expansion_search = ef

    def search(query: Vectors) -> Any:
        return index.search(query, K, threads=1)

    def rows_of(matches: Any) -> Numbers:
        return np.asarray(matches.keys).astype(np.int64)

    return Peer("USearch HNSW", seconds, "ef", _EFS, turn, search, rows_of)


def _hnswlib(rows: Vectors, _scratch: Path) -> Peer:
    library: Any = importlib.import_module("hnswlib")
    started = time.perf_counter()
    index = library.Index(space="ip", dim=DIMENSIONS)
    index.init_index(
        max_elements=len(rows), ef_construction=EXPANSION_ADD, M=CONNECTIVITY, random_seed=1
    )
    index.add_items(rows, np.arange(len(rows)), num_threads=os.cpu_count())
    seconds = time.perf_counter() - started
    index.set_num_threads(1)

    def search(query: Vectors) -> Any:
        return index.knn_query(query, K)

    def rows_of(found: Any) -> Numbers:
        labels: Numbers = found[0][0].astype(np.int64)
        return labels

    return Peer("hnswlib", seconds, "ef", _EFS, index.set_ef, search, rows_of)


def _faiss(name: str, factory: str, knob: str, settings: Sequence[int]) -> Any:
    def build(rows: Vectors, _scratch: Path) -> Peer:
        library: Any = importlib.import_module("faiss")
        library.omp_set_num_threads(os.cpu_count())
        started = time.perf_counter()
        lists = max(1, min(2_048, len(rows) // _ROWS_PER_LIST))
        index = library.index_factory(
            DIMENSIONS, factory.format(lists=lists), library.METRIC_INNER_PRODUCT
        )
        index.train(rows)
        index.add(rows)
        seconds = time.perf_counter() - started
        library.omp_set_num_threads(1)
        space = library.ParameterSpace()
        if factory.endswith(",RFlat"):
            space.set_index_parameter(index, "k_factor_rf", _REFINED)

        def turn(value: int) -> None:
            space.set_index_parameter(index, knob, value)

        def search(query: Vectors) -> Any:
            return index.search(query[np.newaxis], K)

        def rows_of(found: Any) -> Numbers:
            rows: Numbers = found[1][0]
            return rows

        return Peer(name, seconds, knob, settings, turn, search, rows_of)

    return build


def _chroma(rows: Vectors, scratch: Path) -> Peer:
    library: Any = importlib.import_module("chromadb")
    settings = library.config.Settings(anonymized_telemetry=False)
    started = time.perf_counter()
    client = library.PersistentClient(path=str(scratch / "chroma"), settings=settings)
    configuration = {"hnsw": {"space": "ip", "ef_search": 100}}
    collection = client.create_collection("rows", configuration=configuration)
    for begin in range(0, len(rows), _CHROMA_BATCH):
        part = rows[begin : begin + _CHROMA_BATCH]
        collection.add(ids=[str(begin + n) for n in range(len(part))], embeddings=part)
    seconds = time.perf_counter() - started

    def search(query: Vectors) -> Any:
        return collection.query(query_embeddings=[query], n_results=K, include=[])

    def rows_of(found: Any) -> Numbers:
        return np.array(found["ids"][0], dtype=np.int64)

    return Peer("Chroma", seconds, "ef", (100,), _as_it_is, search, rows_of, few_queries=True)


def _lancedb(rows: Vectors, scratch: Path) -> Peer:
    library: Any = importlib.import_module("lancedb")
    arrow: Any = importlib.import_module("pyarrow")
    started = time.perf_counter()
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.ravel()), DIMENSIONS)
    data = arrow.table({"id": np.arange(len(rows)), "vector": vectors})
    table = library.connect(str(scratch / "lance")).create_table("rows", data)
    table.create_index(metric="dot", vector_column_name="vector")
    seconds = time.perf_counter() - started
    probes = [20]

    def turn(value: int) -> None:
        probes[0] = value

    def search(query: Vectors) -> Any:
        asked = table.search(query).distance_type("dot").nprobes(probes[0]).refine_factor(10)
        return asked.select(["id", "_distance"]).limit(K).to_arrow()

    def rows_of(found: Any) -> Numbers:
        rows: Numbers = found["id"].to_numpy()
        return rows

    return Peer("LanceDB", seconds, "nprobes", (5, 20, 80), turn, search, rows_of, few_queries=True)


def _as_it_is(_setting: int) -> None:
    return


Build = Callable[[Vectors, Path], Peer]

_BUILDERS: Sequence[tuple[Sequence[str], Sequence[Build]]] = (
    (("usearch",), (_usearch,)),
    (("hnswlib",), (_hnswlib,)),
    (
        ("faiss",),
        (
            _faiss("Faiss HNSW", f"HNSW{CONNECTIVITY},Flat", "efSearch", _EFS),
            _faiss("Faiss IVF SQ8", "IVF{lists},SQ8", "nprobe", _PROBES),
            _faiss("Faiss IVF PQ fast scan", "IVF{lists},PQ64x4fs,RFlat", "nprobe", _PROBES),
            _faiss("Faiss IVF RaBitQ", "IVF{lists},RaBitQ,RFlat", "nprobe", _PROBES),
        ),
    ),
    (("chromadb",), (_chroma,)),
    (("lancedb", "pyarrow"), (_lancedb,)),
)
"""What each needs, and what builds it."""

LIBRARIES = tuple(libraries[0] for libraries, _ in _BUILDERS)
"""What a search can be compared with."""
