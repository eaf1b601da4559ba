"""Readers never see a partially written file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shashin.runtime.json_file import read_json, write_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each replaces the last
@given(JSON)
def test_what_is_written_is_read(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "new" / "status.json"
    write_json(path, document)
    assert read_json(path) == document
    assert [file.name for file in path.parent.iterdir()] == ["status.json"]


@pytest.mark.parametrize("content", [b"", b'{"half": ', b"\xff\xfe", b"words"])
def test_what_holds_no_json_reads_as_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status.json").write_bytes(content)
    assert read_json(tmp_path / "status.json") is None


def test_what_is_not_there_reads_as_nothing(tmp_path: Path) -> None:
    assert read_json(tmp_path / "status.json") is None
    assert read_json(tmp_path) is None


async def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_json(path, [0])

    def write_over() -> None:
        for length in range(1, 200):
            write_json(path, [length] * length * 20)

    writing = asyncio.ensure_future(asyncio.to_thread(write_over))
    while not writing.done():
        document = await asyncio.to_thread(read_json, path)
        assert document is not None
        assert set(document) == {document[0]}
        assert len(document) == max(1, document[0] * 20)
    await writing
