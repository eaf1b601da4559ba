"""Size limits of messages (see proto/), shared by clients and servers."""

from __future__ import annotations

MAX_K = 1000
"""Maximum hits of a search."""

MAX_EXCLUDED = 1000
"""Maximum listings that a search excludes."""

MAX_HITS = 4096
"""Maximum hits per query of IndexService.Search: of a search, those it excludes, and as many again that
another endpoint has in a newer version."""

MAX_QUERIES = 64
"""Maximum query vectors per call of IndexService.Search."""

SHARED_QUERIES = 16
"""Query vectors that are searched in one go, at most: a search of more takes turns with others. Beyond, a
vector costs hardly less in company, and the others wait for longer."""

MAX_LISTING_IDS = 1000
"""Maximum listing ids per call of Lookup or Locate."""

MAX_NEWEST = 200
"""Maximum listings of IndexService.Newest."""

MAX_PHOTO_BYTES = 16 * 1024 * 1024
"""Maximum size of a query photo."""

MAX_LISTING_ID_BYTES = 256
"""Maximum length of a listing id in UTF-8."""
