from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.indexer.settings import IndexerSettings, parse_partitions
from shashin.offsets.cut import CutRules


def test_all_is_none() -> None:
    assert parse_partitions("all") is None


@pytest.mark.parametrize(
    ("text", "partitions"),
    [
        ("0", [0]),
        ("0-3,7", [0, 1, 2, 3, 7]),
        ("7, 0-1 ,1", [0, 1, 7]),
        ("5-5", [5]),
    ],
)
def test_partitions_and_ranges_are_listed(text: str, partitions: list[int]) -> None:
    assert parse_partitions(text) == partitions


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=6))
def test_a_list_yields_its_partitions_sorted_and_once_each(
    parts: list[tuple[int, int]],
) -> None:
    text = ",".join(f"{begin}-{begin + more}" if more else str(begin) for begin, more in parts)
    named = {p for begin, more in parts for p in range(begin, begin + more + 1)}
    assert parse_partitions(text) == sorted(named)


@pytest.mark.parametrize("text", ["", ",", "a", "0-", "-3", "0,,1", "All", "1.5", "0-b", "1;2"])
def test_invalid_parts_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a partition or a range such as 0-3"):
        parse_partitions(text)


@pytest.mark.parametrize("text", ["3-1", "0-3,9-7", "1--3"])
def test_a_range_that_ends_before_it_begins_is_rejected(text: str) -> None:
    # If it were silently ignored, no indexer would index its partitions.
    with pytest.raises(ValueError, match="ends before it begins"):
        parse_partitions(text)


def settings_of(tmp_path: Path, **changes: object) -> IndexerSettings:
    return IndexerSettings(
        repository=tmp_path.as_uri(),
        work_folder=tmp_path / "work",
        discovery=(tmp_path / "discovery.json").as_uri(),
        **changes,  # type: ignore[arg-type]
    )


def test_cut_rules_come_from_the_settings(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, bucket_seconds=20, grace_seconds=1.5, row_limit=9)
    assert settings.cut_rules() == CutRules(20, 1.5, 9)


def test_invalid_partitions_are_a_validation_error(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="partitions"):
        settings_of(tmp_path, partitions="0-x")
