"""The names of the index kinds: for documents, which name a kind without using it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MODULES: Final[Mapping[str, str]] = {
    "usearch-hnsw": "shashin.shards.kinds.usearch_hnsw",
    "flat-f16": "shashin.shards.kinds.flat_f16",
    "ivf-f16": "shashin.shards.kinds.ivf_f16",
    "ivf-sq4": "shashin.shards.kinds.ivf_sq4",
}
"""The module of each kind, which ``shashin.shards.kinds.registry`` imports on demand."""


def kind_names() -> list[str]:
    """Return every known name."""
    return list(MODULES)
