"""USearch's limitations that ``usearch-hnsw`` has to work around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from usearch.index import Index

from shashin.errors import CorruptShard
from shashin.shards.kinds.usearch_hnsw import INDEX_FILE, UsearchHnsw
from tests.support.made_shards import DIMENSIONS, vectors


def test_a_graph_strands_most_of_many_equal_vectors() -> None:
    # Once USearch finds all of them, masked search no longer needs its brute-force fallback.
    rows = np.repeat(vectors(1, 6), 1_000, axis=0)
    index = UsearchHnsw().growing(DIMENSIONS)
    index.add(rows)
    assert len(index.nearest(rows[0], 1_000)[0]) < 500


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
