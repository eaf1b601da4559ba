"""``ivf-sq4`` with many lists: recall, instructions, and files that do not belong together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shashin.errors import CorruptShard
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds.ivf_sq4 import (
    KIND,
    QUANTIZER_FILE,
    ROWS_FILE,
    STARTS_FILE,
    IvfSq4Index,
)
from shashin.shards.kinds.native import library
from shashin.shards.kinds.npy_file import write_array
from shashin.shards.kinds.protocol import Vectors
from shashin.shards.kinds.quantizer import Quantizer, train, unit
from tests.support.brute_force import brute_force

ROWS, LISTS = 6_000, 64


def made(count: int, dimensions: int, seed: int = 0) -> Vectors:
    """Return rows of unit length that float16 holds exactly."""
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((count, dimensions)).astype(np.float32))
    return rows.astype(np.float16).astype(np.float32)


def written(rows: Vectors, folder: Path) -> IndexSpec:
    builder = KIND.with_quantizer(train(rows, LISTS)).builder(rows.shape[1])
    builder.add(rows)
    builder.write(folder)
    return builder.spec


@pytest.fixture(scope="module", params=[8, 64, 96, 200])
def dimensions(request: pytest.FixtureRequest) -> int:
    """Whole chunks of a code, and less."""
    return int(request.param)


@pytest.fixture(scope="module")
def index(dimensions: int, tmp_path_factory: pytest.TempPathFactory) -> IvfSq4Index:
    folder = tmp_path_factory.mktemp("index")
    return KIND.open(written(made(ROWS, dimensions), folder), folder)


@pytest.fixture(params=range(library.LEVEL + 1))
def level(request: pytest.FixtureRequest) -> Iterator[int]:
    """Every set of instructions that this CPU has."""
    assert library.use_level(request.param) == request.param
    yield request.param
    library.use_level(library.LEVEL)


@pytest.mark.parametrize("share", [None, 0.6])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_nearly_all_of_the_nearest_rows_are_found_with_exact_scores(
    index: IvfSq4Index, dimensions: int, level: int, k: int, share: float | None
) -> None:
    rows = made(ROWS, dimensions)
    rng = np.random.default_rng(3)
    allowed = None if share is None else rng.random(ROWS) < share
    group = np.arange(ROWS, dtype=np.uint32) // 2
    queries = unit(rows[::300] + 0.5 * made(20, dimensions, 5))
    found = index.search(queries, k, allowed=allowed, group=group, groups=ROWS // 2)
    right = 0
    for query, neighbours in zip(queries, found, strict=True):
        assert len(set(group[neighbours.rows].tolist())) == k
        assert allowed is None or allowed[neighbours.rows].all()
        assert neighbours.scores == pytest.approx(rows[neighbours.rows] @ query, abs=1e-5)
        expected = {row for row, _ in brute_force(rows, query, k, allowed, group)}
        right += len(expected & set(neighbours.rows.tolist()))
    assert right >= 0.97 * k * len(queries)


def test_a_search_reads_far_fewer_lists_than_there_are(index: IvfSq4Index) -> None:
    assert index.run.probes < LISTS


def test_every_instruction_set_finds_the_same_rows(index: IvfSq4Index, dimensions: int) -> None:
    queries = unit(made(30, dimensions, 9))
    group = np.arange(ROWS, dtype=np.uint32)
    answers = []
    for level in range(library.LEVEL + 1):
        library.use_level(level)
        found = index.search(queries, 5, allowed=None, group=group, groups=ROWS)
        answers.append([neighbours.rows.tolist() for neighbours in found])
    assert all(answer == answers[0] for answer in answers)


def test_a_row_that_is_its_centroid_is_found(tmp_path: Path) -> None:
    rows = made(LISTS, 8)
    builder = KIND.with_quantizer(Quantizer(rows)).builder(8)
    builder.add(rows)
    builder.write(tmp_path)
    opened = KIND.open(builder.spec, tmp_path)
    group = np.arange(LISTS, dtype=np.uint32)
    found = opened.search(rows, 1, allowed=None, group=group, groups=LISTS)
    assert [neighbours.rows[0] for neighbours in found] == list(range(LISTS))


def test_a_quantizer_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    spec = written(made(300, 8), tmp_path)
    (tmp_path / QUANTIZER_FILE).unlink()
    Quantizer(made(5, 8)).write(tmp_path / QUANTIZER_FILE)
    with pytest.raises(CorruptShard, match=f"{QUANTIZER_FILE} has 5 centroids"):
        KIND.open(spec, tmp_path)


def test_a_missing_quantizer_is_refused_by_name(tmp_path: Path) -> None:
    spec = written(made(300, 8), tmp_path)
    (tmp_path / QUANTIZER_FILE).unlink()
    with pytest.raises(CorruptShard, match=QUANTIZER_FILE):
        KIND.open(spec, tmp_path)


@pytest.mark.parametrize("at", [0, 1, LISTS])
def test_lists_that_do_not_divide_the_rows_are_refused_by_name(tmp_path: Path, at: int) -> None:
    spec = written(made(300, 8), tmp_path)
    starts = np.load(tmp_path / STARTS_FILE)
    (tmp_path / STARTS_FILE).unlink()
    starts[at] = 301
    write_array(tmp_path / STARTS_FILE, starts)
    with pytest.raises(CorruptShard, match=STARTS_FILE):
        KIND.open(spec, tmp_path)


def test_a_row_number_beyond_the_rows_is_refused_by_name(tmp_path: Path) -> None:
    spec = written(made(300, 8), tmp_path)
    rows = np.load(tmp_path / ROWS_FILE)
    (tmp_path / ROWS_FILE).unlink()
    rows[7] = 300
    write_array(tmp_path / ROWS_FILE, rows)
    with pytest.raises(CorruptShard, match=rf"{ROWS_FILE} has row 300 of 300"):
        KIND.open(spec, tmp_path)


def test_lists_of_a_spec_have_to_be_those_of_the_files(tmp_path: Path) -> None:
    spec = written(made(300, 8), tmp_path)
    with pytest.raises(CorruptShard, match=STARTS_FILE):
        KIND.open(replace(spec, parameters={"lists": LISTS + 1, "probes": 1}), tmp_path)
