"""The tiers of a model's shards, from the freshest to the oldest."""

from __future__ import annotations

from collections.abc import Iterable

LIVE = "live"
"""Open shards, and sealed ones that no index server is known to serve yet; served by indexers."""

HOURLY = "hourly"
"""Shards as indexers seal them."""

DAILY, MONTHLY = "daily", "monthly"
"""Shards that builds merge from those of the previous tier."""

TIERS = (LIVE, HOURLY, DAILY, MONTHLY)
"""Every tier that an endpoint may have."""

SEALED_TIERS = (HOURLY, DAILY, MONTHLY)
"""The tiers whose shards are in the model repository, from the freshest to the oldest: each has a
pointer, which the image builder moves."""


def age_of(tier: str) -> int:
    """Return a tier's rank, 0 for the freshest; unknown tiers rank last."""
    return TIERS.index(tier) if tier in TIERS else len(TIERS)


def freshest_first(tiers: Iterable[str]) -> list[str]:
    """Return the tiers in order of age, unknown ones last, by name."""
    return sorted(tiers, key=lambda tier: (age_of(tier), tier))
