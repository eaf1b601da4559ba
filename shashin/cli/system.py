"""The system of one state folder: where its parts are, and how they start and stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shashin.cli.console import Stages


@dataclass(frozen=True)
class UpOptions:
    """What ``shashin up`` may be told."""

    kafka: str | None = None
    bucket_seconds: int = 3600
    grace_seconds: float = 60.0
    partitions: int = 4


@dataclass(frozen=True)
class ProcessLine:
    """One process as ``shashin status`` shows it."""

    name: str
    status: str
    well: bool
    detail: str
    pid: int | None
    restarts: int
    rss_bytes: int
    address: str


class System:
    """Everything that lives in one state folder."""

    model_id = "demo-v1"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def photos(self) -> Path:
        """Where published photos are copied to; the downloader may read here."""
        return self.folder / "photos"

    @property
    def repository(self) -> str:
        """URI of the model repository."""
        return (self.folder / "repository").as_uri()

    @property
    def logs(self) -> Path:
        """Where every process writes its log."""
        return self.folder / "logs"

    def kafka_address(self) -> str:
        raise NotImplementedError

    def router_address(self) -> str:
        raise NotImplementedError

    def embedder_address(self) -> str:
        raise NotImplementedError

    def pids(self) -> Mapping[str, int]:
        raise NotImplementedError

    def processes(self) -> list[ProcessLine]:
        raise NotImplementedError

    async def start(self, options: UpOptions, stages: Stages) -> bool:
        raise NotImplementedError

    async def stop(self) -> bool:
        raise NotImplementedError

    async def start_kafka(self, stages: Stages) -> str:
        raise NotImplementedError

    async def stop_kafka(self) -> bool:
        raise NotImplementedError
