"""The cache of originals: photos as their sources had them, in a folder that processes share."""

from shashin.originals.cache import Original, OriginalsCache
from shashin.originals.entry import CacheEntry, SourceVersion

__all__ = ["CacheEntry", "Original", "OriginalsCache", "SourceVersion"]
