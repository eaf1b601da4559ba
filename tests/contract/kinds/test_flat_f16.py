"""The file of ``flat-f16``: readable by numpy, but independent of its version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shashin.errors import CorruptShard
from shashin.shards.kinds.flat_f16 import INDEX_FILE, FlatF16
from shashin.shards.kinds.protocol import Vectors
from tests.support.made_shards import DIMENSIONS, vectors


def written(folder: Path, rows: Vectors) -> Path:
    index = FlatF16().builder(DIMENSIONS)
    index.add(rows)
    index.write(folder)
    return folder / INDEX_FILE


@pytest.mark.parametrize("count", [0, 1, 2_000])
def test_numpy_reads_the_file(tmp_path: Path, count: int) -> None:
    rows = vectors(count, 1)
    found = np.load(written(tmp_path, rows))
    assert found.dtype == np.float16
    assert np.array_equal(found, rows.astype(np.float16))


def test_the_header_of_a_file_never_changes(tmp_path: Path) -> None:
    # Readers compare it: with a different one, they would reject existing shards.
    content = written(tmp_path, vectors(3, 1)).read_bytes()
    described = b"{'descr': '<f2', 'fortran_order': False, 'shape': (3, 8), }"
    assert content[:128] == b"\x93NUMPY\x01\x00\x76\x00" + described.ljust(117) + b"\n"
    assert len(content) == 128 + 3 * 8 * 2


def test_equal_scores_come_in_the_order_of_rows() -> None:
    near, far = vectors(1, 6), -vectors(1, 6)
    index = FlatF16().builder(DIMENSIONS)
    index.add(np.concatenate([far, near] * 500))
    group = np.arange(1_000, dtype=np.uint32)
    (found,) = index.search(near, 700, allowed=None, group=group, groups=1_000)
    assert found.rows.tolist() == [*range(1, 1_000, 2), *range(0, 400, 2)]


@pytest.mark.parametrize("position", range(0, 128, 5))
def test_a_file_with_another_header_is_refused(tmp_path: Path, position: int) -> None:
    path = written(tmp_path, vectors(3, 1))
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    kind = FlatF16()
    with pytest.raises(CorruptShard, match=r"vectors\.npy is not a complete file"):
        kind.open(kind.builder(DIMENSIONS).spec, tmp_path)


def test_a_file_longer_than_its_header_says_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, vectors(3, 1))
    kind = FlatF16()
    whole = path.read_bytes()
    for more in (b"\0", b"\0" * 16):
        path.write_bytes(whole + more)
        with pytest.raises(CorruptShard, match=r"vectors\.npy is not a complete file"):
            kind.open(kind.builder(DIMENSIONS).spec, tmp_path)
