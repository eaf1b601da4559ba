"""The sizes that messages promise (see proto/): both ends of a call check against the same ones."""

from __future__ import annotations

MAX_HITS = 1000
"""Hits that one IndexService.Search gives for each query."""

MAX_QUERIES = 64
"""Query vectors that one IndexService.Search takes."""

MAX_LISTING_IDS = 1000
"""Listing ids that one Lookup or Locate names."""

MAX_LISTING_ID_BYTES = 256
"""Length of a listing id in UTF-8."""
