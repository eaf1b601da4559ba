from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.indexer.settings import IndexerSettings
from shashin.offsets.cut import CutRules


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
