"""Metrics of the downloader; those of photos are in ``shashin.photo_sources``."""

from __future__ import annotations

from prometheus_client import Counter

HIDDEN = Counter("shashin_downloader_hidden", "Listings reported as sold or removed.", ["kind"])
