"""Settings of an indexer that tests start."""

from __future__ import annotations

from pathlib import Path

from tests.support.embedded_listings import DIMENSIONS, MODEL


def indexer_settings(tmp_path: Path, **changes: object) -> dict[str, object]:
    """Return settings with folders below ``tmp_path``, with changes."""
    return {
        "model_id": MODEL,
        "dimensions": DIMENSIONS,
        "repository": (tmp_path / "repository").as_uri(),
        "work_folder": tmp_path / "work",
        "discovery": (tmp_path / "discovery.json").as_uri(),
        "bucket_seconds": 3600,
        "grace_seconds": 1,
        **changes,
    }
