"""USearch's limitations that ``usearch-hnsw`` has to work around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from usearch.index import Index

from shashin.errors import CorruptShard
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds import usearch_hnsw
from shashin.shards.kinds.equal_vectors import NODES_FILE
from shashin.shards.kinds.protocol import Vectors
from shashin.shards.kinds.usearch_hnsw import INDEX_FILE, UsearchHnsw, to_bfloat16
from tests.support.made_shards import DIMENSIONS, vectors


def plain(rows: Vectors) -> Index:
    """Return the library's own index with a node per row, as it was written before."""
    index = Index(
        ndim=DIMENSIONS,
        metric="ip",
        dtype="bf16",
        connectivity=16,
        expansion_add=128,
        expansion_search=64,
    )
    index.add(np.arange(len(rows), dtype=np.uint64), rows, threads=1)
    return index


def test_a_graph_strands_most_of_many_equal_vectors() -> None:
    # Once USearch finds all of them, equal vectors no longer need to be collapsed.
    rows = np.repeat(vectors(1, 6), 1_000, axis=0)
    assert len(plain(rows).search(rows[0], 1_000, threads=1).keys) < 500


def test_distinct_vectors_give_the_file_that_the_library_writes_and_no_other(
    tmp_path: Path,
) -> None:
    rows = np.random.default_rng(5).normal(size=(5_000, DIMENSIONS)).astype(np.float32)
    plain(rows).save(str(tmp_path / "plain"))
    index = UsearchHnsw().builder(DIMENSIONS)
    index.add(rows)
    assert index.write(tmp_path) == (INDEX_FILE,)
    assert (tmp_path / INDEX_FILE).read_bytes() == (tmp_path / "plain").read_bytes()


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda x: abs(x) < 3e38),
        min_size=DIMENSIONS,
        max_size=DIMENSIONS,
    )
)
def test_vectors_are_rounded_as_the_library_rounds_them(numbers: list[float]) -> None:
    rows = np.array([numbers], dtype=np.float32)
    stored = np.array(plain(rows).get(np.zeros(1, dtype=np.uint64)), dtype=np.float32)
    assert (to_bfloat16(rows).astype(np.uint32) << 16).view(np.float32).tolist() == stored.tolist()


def test_an_index_without_a_file_of_nodes_is_read_as_one_node_per_row(tmp_path: Path) -> None:
    # That is how shards with equal vectors were sealed before.
    rows = np.repeat(vectors(10, 1), 3, axis=0)
    plain(rows).save(str(tmp_path / INDEX_FILE))
    opened = UsearchHnsw().open(UsearchHnsw().builder(DIMENSIONS).spec, tmp_path)
    assert len(opened) == 30
    group = np.arange(30, dtype=np.uint32)
    for number in range(30):
        query = rows[number : number + 1]
        (found,) = opened.search(query, 3, allowed=None, group=group, groups=30)
        assert sorted(found.rows) == [3 * (number // 3) + n for n in range(3)]


def test_vectors_with_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usearch_hnsw, "hash", lambda _content: -7, raising=False)
    rows = np.concatenate([vectors(1_500, 2), vectors(1_500, 2)])
    index = UsearchHnsw(connectivity=2, expansion_add=8).growing(DIMENSIONS)
    index.add(rows)
    assert (len(index), index.nodes) == (3_000, 1_500)
    assert np.array_equal(index.vectors(np.arange(3_000)), rows)


@pytest.fixture
def collapsed(tmp_path: Path) -> tuple[IndexSpec, Path]:
    """The spec of an index of 30 rows with 10 vectors, and its file of nodes."""
    index = UsearchHnsw().builder(DIMENSIONS)
    index.add(np.concatenate([vectors(10, 1)] * 3))
    assert index.write(tmp_path) == (INDEX_FILE, NODES_FILE)
    return index.spec, tmp_path / NODES_FILE


def test_numpy_reads_the_file_of_nodes(collapsed: tuple[IndexSpec, Path]) -> None:
    nodes = np.load(collapsed[1])
    assert (nodes.dtype, nodes.tolist()) == (np.dtype("<u4"), [*range(10)] * 3)


def nodes(*numbers: int) -> bytes:
    described = f"{{'descr': '<u4', 'fortran_order': False, 'shape': ({len(numbers)},), }}"
    header = b"\x93NUMPY\x01\x00\x76\x00" + described.ljust(117).encode() + b"\n"
    return header + np.array(numbers, dtype="<u4").tobytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        bytes(500),
        nodes(),
        nodes(*range(10)),  # each node once: then there is no such file
        nodes(*range(11), 3),  # a node that the index does not have
        nodes(*range(9), 3),  # a node without rows
        nodes(0, 2, 1, *range(3, 10), 3),  # not in the order of first rows
        nodes(*range(1, 10), 0, 0),
        nodes(*range(10), 2**32 - 1),
        nodes(*range(10), 3)[:-1],
        nodes(*range(10), 3) + bytes(4),
    ],
    ids=range(12),
)
def test_nodes_that_do_not_belong_to_the_index_are_refused_by_name(
    collapsed: tuple[IndexSpec, Path], content: bytes
) -> None:
    spec, path = collapsed
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(CorruptShard, match=r"nodes\.npy"):
        UsearchHnsw().open(spec, path.parent)


def test_a_lost_file_of_nodes_is_noticed_by_the_number_of_rows(
    collapsed: tuple[IndexSpec, Path],
) -> None:
    spec, path = collapsed
    path.unlink()
    assert len(UsearchHnsw().open(spec, path.parent)) == 10, "the manifest says 30"


@pytest.mark.parametrize("duplicated", [1, 50])
def test_a_row_with_a_vector_of_its_own_costs_nothing_for_the_rows_that_are_equal(
    duplicated: int,
) -> None:
    rows = vectors(3_000, 4)
    index = UsearchHnsw(connectivity=2, expansion_add=8).growing(DIMENSIONS)
    index.add(rows)
    before = index.row_nodes.memory_bytes
    assert before == 0
    index.add(rows[:duplicated])
    assert index.row_nodes.memory_bytes < 16 * 2 * len(rows) + 100 * duplicated


@pytest.mark.parametrize(("metric", "dtype"), [("ip", "f32"), ("ip", "i8"), ("l2sq", "bf16")])
def test_an_index_of_another_metric_or_type_is_refused(
    tmp_path: Path, metric: str, dtype: str
) -> None:
    # The library opens it anyway, and scores would be wrong.
    other = Index(ndim=DIMENSIONS, metric=metric, dtype=dtype)
    other.add(np.arange(3, dtype=np.uint64), vectors(3, 1))
    other.save(str(tmp_path / INDEX_FILE))
    kind = UsearchHnsw()
    with pytest.raises(CorruptShard, match=r"index\.usearch is not an index of ip and bf16"):
        kind.open(kind.builder(DIMENSIONS).spec, tmp_path)


def test_an_index_that_was_built_with_other_parameters_is_opened(tmp_path: Path) -> None:
    dense = UsearchHnsw(connectivity=32, expansion_add=200, expansion_search=100)
    index = dense.builder(DIMENSIONS)
    index.add(vectors(40, 1))
    index.write(tmp_path)
    opened = UsearchHnsw().open(index.spec, tmp_path)
    assert opened.spec == index.spec
    assert len(opened) == 40
