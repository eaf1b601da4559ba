"""Settings of a service that uses the cache of originals."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from shashin.originals.cache import OriginalsCache
from shashin.runtime.settings import ServiceSettings


class CacheSettings(ServiceSettings):
    """The cache of originals."""

    cache_folder: str = Field(
        "",
        description="Folder in which original photos are cached, an absolute path; several "
        "processes may share it. Empty: nothing is cached.",
    )
    cache_bytes: int = Field(
        10 * 1024**3,
        ge=1024 * 1024,
        description="Maximum size of that folder, in bytes. Beyond it, the originals that were "
        "not used for longest are removed. It may be exceeded by a few percent for up to ten minutes.",
    )
    cache_seconds: float = Field(
        30 * 86_400.0,
        gt=0,
        description="Seconds after which an original that was not used is removed from the cache.",
    )

    @field_validator("cache_folder")
    @classmethod
    def _is_absolute(cls, folder: str) -> str:
        if folder and not Path(folder).is_absolute():
            raise ValueError(f"{folder!r} is not an absolute path")
        return folder

    def cache(self) -> OriginalsCache | None:
        """Return the cache, if there is one."""
        if not self.cache_folder:
            return None
        return OriginalsCache(
            Path(self.cache_folder), max_bytes=self.cache_bytes, keep_seconds=self.cache_seconds
        )
