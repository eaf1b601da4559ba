"""The names of consumer groups, each of which belongs to one stage of the pipeline."""

from __future__ import annotations

DOWNLOADER_GROUP = "downloader"


def embedder_group(model_id: str) -> str:
    """Return the group of a model's embedders."""
    return f"embedder.{model_id}"


def indexer_group(model_id: str) -> str:
    """Return the group whose offsets a model's indexers commit, for lag dashboards only."""
    return f"indexer.{model_id}"
