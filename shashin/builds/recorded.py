"""Where builds are recorded: in a state folder, or as objects of a namespace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from shashin.builds.document import IndexBuild
from shashin.builds.fingerprints import fingerprints
from shashin.builds.records import BuildRecords, RecordedBuild
from shashin.builds.status import BuildStatus, Phase
from shashin.errors import ShashinError


class RecordedBuilds(Protocol):
    """The builds that are known, for those that plan new ones."""

    under_way: tuple[Phase, ...]
    """Phases of builds that will end without us, so that no other one may merge their shards."""

    async def read_all(self) -> tuple[Sequence[RecordedBuild], Mapping[str, ShashinError]]:
        """Return all builds, oldest first, and by its name why each other one cannot be read."""
        ...

    async def create(self, build: IndexBuild, repository: str, now: datetime) -> bool:
        """Record a new build, to be run with a repository; returns False if its name is taken.

        So of several that plan at once, one creates it.
        """
        ...


class FolderBuilds:
    """The builds of a state folder."""

    under_way: tuple[Phase, ...] = ("Running",)

    def __init__(self, records: BuildRecords) -> None:
        self._records = records

    async def read_all(self) -> tuple[Sequence[RecordedBuild], Mapping[str, ShashinError]]:
        """Return all builds, and why others cannot be read."""
        return self._records.read_all()

    async def create(self, build: IndexBuild, repository: str, now: datetime) -> bool:
        """Record a new build.

        Raises:
            DiskUnavailable: when the record cannot be written.
        """
        status = BuildStatus.of_a_new_build(
            fingerprints(build, repository),
            repository=repository,
            command_folder=str(self._records.folder),
            now=now,
        )
        return self._records.record(build.name).create(build, status)
