"""``ivf-f16`` with lists: the contract's tests have too few rows for more than one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shashin.errors import CorruptShard, UnknownFormat
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds import ivf_f16
from shashin.shards.kinds.protocol import SearchableIndex, Vectors
from tests.support.brute_force import assert_same, brute_force
from tests.support.made_shards import DIMENSIONS, vectors

ROWS = vectors(6_000, 3)
GROUP = (np.arange(len(ROWS)) // 2).astype(np.uint32)
FILES = ["centroids.npy", "list-rows.npy", "positions.npy", "starts.npy", "vectors.npy"]


@pytest.fixture(autouse=True)
def many_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ivf_f16, "_FLAT_ROWS", 100)


def built(rows: Vectors, folder: Path) -> tuple[SearchableIndex, IndexSpec]:
    builder = ivf_f16.KIND.builder(DIMENSIONS)
    builder.add(rows)
    folder.mkdir()
    names = builder.write(folder)
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    return ivf_f16.KIND.open(builder.spec, folder), builder.spec


@pytest.fixture
def index(tmp_path: Path, many_lists: None) -> SearchableIndex:
    index, spec = built(ROWS, tmp_path / "index")
    assert 1 < spec.parameters["probes"] < spec.parameters["lists"]
    return index


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("visible", [None, 0.5])
def test_nearest_rows_are_found_at_the_measured_recall(
    index: SearchableIndex, k: int, visible: float | None
) -> None:
    rng = np.random.default_rng(1)
    allowed = None if visible is None else rng.random(len(ROWS)) < visible
    queries = vectors(20, 9)
    right = 0
    for query in queries:
        (found,) = index.search(query[None], k, allowed=allowed, group=GROUP, groups=3_000)
        assert len(found.rows) == k
        assert allowed is None or allowed[found.rows].all()
        assert found.scores == pytest.approx(ROWS[found.rows] @ query, abs=1e-2)
        expected = {row for row, _ in brute_force(ROWS, query, k, allowed, GROUP)}
        right += len(expected & set(found.rows.tolist()))
    assert right >= 0.93 * k * len(queries)


def test_a_filter_that_leaves_only_rows_far_from_the_query_still_gives_k_hits(
    index: SearchableIndex,
) -> None:
    query = vectors(1, 9)[0]
    scores = ROWS @ query
    allowed = scores <= np.quantile(scores, 0.5)
    assert np.count_nonzero(allowed) > ivf_f16._EXACT_ROWS
    (found,) = index.search(query[None], 200, allowed=allowed, group=GROUP, groups=3_000)
    assert len(found.rows) == 200
    few = np.random.default_rng(2).random(len(ROWS)) < 0.05
    (found,) = index.search(query[None], 50, allowed=few, group=GROUP, groups=3_000)
    assert_same(found, brute_force(ROWS, query, 50, few, GROUP))


def test_vectors_are_returned_by_row(index: SearchableIndex) -> None:
    keys = np.array([5_999, 0, 17, 17], dtype=np.int64)
    assert index.vectors(keys) == pytest.approx(ROWS[keys], abs=1e-3)


def test_equal_vectors_beside_others_are_all_found(tmp_path: Path) -> None:
    rows = np.concatenate([np.repeat(ROWS[:1], 3_000, axis=0), ROWS[1:400]])
    index, _ = built(rows, tmp_path / "index")
    apart = np.arange(len(rows), dtype=np.uint32)
    (found,) = index.search(ROWS[:1], 1_000, allowed=None, group=apart, groups=len(rows))
    assert found.rows.tolist() == list(range(1_000))
    for number in range(3_000, len(rows), 50):
        (found,) = index.search(rows[number][None], 1, allowed=None, group=apart, groups=len(rows))
        assert found.rows.tolist() == [number]


def test_the_same_vectors_give_the_same_files(tmp_path: Path) -> None:
    built(ROWS, tmp_path / "one")
    built(ROWS, tmp_path / "other")
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "missing", "longer"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    _, spec = built(ROWS, tmp_path / "index")
    path = tmp_path / "index" / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(whole[:-2] if damage == "cut" else whole + bytes(32))
    with pytest.raises(CorruptShard, match=name.replace(".", r"\.")):
        ivf_f16.KIND.open(spec, tmp_path / "index")


def test_starts_that_do_not_divide_the_vectors_are_refused(tmp_path: Path) -> None:
    _, spec = built(ROWS, tmp_path / "index")
    path = tmp_path / "index" / "starts.npy"
    content = bytearray(path.read_bytes())
    content[-4:] = (1).to_bytes(4, "little")
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(CorruptShard, match=r"starts\.npy does not divide"):
        ivf_f16.KIND.open(spec, tmp_path / "index")


@pytest.mark.parametrize(
    "parameters", [{"lists": 0, "probes": 1}, {"lists": 2, "probes": 3}, {"lists": 2}, {"more": 1}]
)
def test_parameters_that_make_no_sense_are_refused(
    tmp_path: Path, parameters: dict[str, int]
) -> None:
    spec = IndexSpec("ivf-f16", "ip", "f16", DIMENSIONS, parameters)
    with pytest.raises(UnknownFormat, match="expected lists and probes"):
        ivf_f16.KIND.open(spec, tmp_path)
