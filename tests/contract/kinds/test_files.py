"""Files of every index kind: deterministic, and rejected when incomplete or corrupt."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.errors import CorruptShard, RepositoryError, UnknownFormat, UserError
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds import names, registry
from shashin.shards.kinds.names import kind_names
from shashin.shards.kinds.protocol import Vectors
from shashin.shards.kinds.registry import growing_kind, index_kind, open_index
from tests.support.kind_under_test import KindUnderTest
from tests.support.made_shards import DIMENSIONS, vectors


def files_of(tested: KindUnderTest, parts: Sequence[Vectors]) -> dict[str, bytes]:
    """Return the files of an index that vectors were added to in these parts."""
    builder = tested.kind.builder(DIMENSIONS)
    for part in parts:
        builder.add(part)
    with tempfile.TemporaryDirectory() as folder:
        names = builder.write(Path(folder))
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    assert sorted(files) == sorted(names)
    return files


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 60), st.sets(st.integers(0, 60), max_size=8), st.integers(0, 1000))
def test_vectors_give_the_same_files_added_in_pieces_or_at_once(
    tested: KindUnderTest, count: int, cuts: set[int], seed: int
) -> None:
    rows = vectors(count, seed)
    at_once = files_of(tested, [rows])
    assert at_once
    assert files_of(tested, np.split(rows, sorted(cuts))) == at_once
    assert files_of(tested, [rows[n : n + 1] for n in range(count)]) == at_once


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


@pytest.fixture
def written(tested_file: tuple[KindUnderTest, str], folder: Path) -> tuple[IndexSpec, Path]:
    """The spec of a complete index in ``folder``, and one of its files."""
    tested, name = tested_file
    builder = tested.kind.builder(DIMENSIONS)
    builder.add(vectors(30, 3))
    assert name in builder.write(folder)
    return builder.spec, folder / name


def test_a_written_index_is_opened_by_its_spec(tested: KindUnderTest, folder: Path) -> None:
    builder = tested.kind.builder(DIMENSIONS)
    builder.add(vectors(30, 3))
    builder.write(folder)
    spec = builder.spec
    assert (spec.kind, spec.dimensions) == (tested.kind.name, DIMENSIONS)
    assert spec.kind == tested.name
    opened = open_index(spec, folder)
    assert len(opened) == 30
    assert opened.vectors(np.arange(30)) == pytest.approx(
        vectors(30, 3), abs=tested.precision.vectors
    )


def assert_refused(spec: IndexSpec, path: Path) -> None:
    with pytest.raises(CorruptShard, match=path.name.replace(".", r"\.")):
        open_index(spec, path.parent)


GARBAGE = [
    b"",
    b"garbage",
    b"\0" * 5_000,
    b"\xff" * 5_000,
    b"PK\x03\x04" + b"\0" * 500,  # a zip file, which numpy takes for one of its own
    b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 118,
    b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '<f2', 'fortran_order': False, 'shape': (99999999999999999999, 8), }".ljust(118),
    b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '<f2', 'fortran_order': True, 'shape': (2, 8), }".ljust(118)
    + b"\0" * 32,
]


@pytest.mark.parametrize("content", GARBAGE, ids=lambda content: repr(content[:12]))
def test_a_file_that_is_garbage_is_refused_by_name(
    written: tuple[IndexSpec, Path], content: bytes
) -> None:
    spec, path = written
    path.write_bytes(content)
    assert_refused(spec, path)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_the_name_of_the_file(
    tested_file: tuple[KindUnderTest, str], content: bytes
) -> None:
    tested, file_name = tested_file
    with tempfile.TemporaryDirectory() as name:
        builder = tested.kind.builder(DIMENSIONS)
        builder.add(vectors(3, 1))
        builder.write(Path(name))
        path = Path(name) / file_name
        path.write_bytes(content)
        assert_refused(builder.spec, path)


def test_a_file_that_is_cut_short_anywhere_is_refused_by_name(
    written: tuple[IndexSpec, Path],
) -> None:
    spec, path = written
    whole = path.read_bytes()
    for end in (*range(0, len(whole), 7), len(whole) - 1):
        path.unlink()  # a file mapped by an earlier iteration must not change
        path.write_bytes(whole[:end])
        assert_refused(spec, path)


def test_a_missing_file_is_refused_by_name(written: tuple[IndexSpec, Path]) -> None:
    spec, path = written
    path.unlink()
    assert_refused(spec, path)


def test_a_folder_in_place_of_the_file_is_refused_by_name(written: tuple[IndexSpec, Path]) -> None:
    spec, path = written
    path.unlink()
    path.mkdir()
    assert_refused(spec, path)


@pytest.mark.parametrize("dimensions", [16, 4, 1, 0, -1, 2**40])
def test_a_file_of_other_dimensions_is_refused_by_name(
    tested: KindUnderTest, folder: Path, dimensions: int
) -> None:
    builder = tested.kind.builder(DIMENSIONS)
    builder.add(vectors(30, 3))
    first, *_ = builder.write(folder)
    assert_refused(replace(builder.spec, dimensions=dimensions), folder / first)


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": "l2"},
        {"stored_type": "no such type"},
        {"parameters": {"lists": 9}},
        {"parameters": {"connectivity": 0}},
        {"parameters": {"connectivity": 1}},
        {"parameters": {"connectivity": -1}},
        {"parameters": {"expansion_search": 2**70}},
        {"kind": "faiss-ivf"},
    ],
    ids=str,
)
def test_a_spec_that_this_version_does_not_know_is_refused(
    written: tuple[IndexSpec, Path], folder: Path, changes: dict[str, Any]
) -> None:
    spec, _ = written
    with pytest.raises(UnknownFormat, match=f"{folder}.* of kind|{folder}.* parameters"):
        open_index(replace(spec, **changes), folder)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["ip", "l2", ""]),
    st.sampled_from(["bf16", "f16", "i8"]),
    st.integers(-(2**63), 2**63) | st.just(DIMENSIONS),
    st.dictionaries(
        st.sampled_from(["connectivity", "expansion_add", "expansion_search", "x"]),
        st.integers() | st.integers(1, 64),
        max_size=3,
    ),
)
def test_any_spec_is_opened_or_raises_a_repository_error(
    tested: KindUnderTest,
    metric: str,
    stored_type: str,
    dimensions: int,
    parameters: dict[str, int],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        builder = tested.kind.builder(DIMENSIONS)
        builder.add(vectors(3, 1))
        builder.write(Path(name))
        spec = IndexSpec(tested.name, metric, stored_type, dimensions, parameters)
        try:
            opened = open_index(spec, Path(name))
        except RepositoryError:
            return
        assert (metric, stored_type, dimensions) == (
            builder.spec.metric,
            builder.spec.stored_type,
            DIMENSIONS,
        )
        assert len(opened) == 3


def test_a_kind_that_is_unknown_is_named_with_those_that_are_known() -> None:
    for find in (index_kind, growing_kind):
        with pytest.raises(UserError, match=r"'faiss-ivf'.* usearch-hnsw or flat-f16"):
            find("faiss-ivf")


def test_every_kind_answers_to_its_own_name() -> None:
    assert [index_kind(name).name for name in kind_names()] == kind_names()
    assert registry.DEFAULT_KIND in kind_names()


def test_a_kind_that_cannot_grow_is_refused_to_indexers(monkeypatch: pytest.MonkeyPatch) -> None:
    # Any module will do, as its KIND cannot grow.
    monkeypatch.setitem(names.MODULES, "built-once", "tests.contract.kinds.test_files")
    with pytest.raises(UserError, match="'built-once' cannot be searched while it grows"):
        growing_kind("built-once")


KIND = object()


def test_the_kinds_that_an_indexer_can_use_are_known_without_their_libraries() -> None:
    growing = [name for name in kind_names() if hasattr(index_kind(name), "growing")]
    assert sorted(growing) == sorted(registry.GROWING_KINDS)


def test_a_kind_whose_library_cannot_be_loaded_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "shashin.shards.kinds.usearch_hnsw", raising=False)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    spec = IndexSpec("usearch-hnsw", "ip", "bf16", 8, {})
    with pytest.raises(UserError, match=r"'usearch-hnsw' needs a library .*usearch.*lock file"):
        index_kind("usearch-hnsw")
    with pytest.raises(UnknownFormat, match="usearch-hnsw, and its library cannot be loaded"):
        open_index(spec, tmp_path)
    assert index_kind("flat-f16").name == "flat-f16", "the others can be used"
