"""Settings of the index server."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shashin.kafka.lost_records import OnLostRecords
from shashin.objectstore.settings import RepositorySettings
from shashin.runtime.settings import ModelSpaceSettings
from shashin.serving.settings import ServingSettings


class IndexServerSettings(ModelSpaceSettings, RepositorySettings, ServingSettings):
    """Settings of the index server."""

    grpc_host: str = Field("127.0.0.1", description="Address that IndexService listens on.")
    grpc_port: int = Field(
        0, ge=0, le=65535, description="Port of IndexService; 0 takes a free one."
    )
    tier: str = Field("hourly", description="Tier to serve.")
    shards_folder: Path | None = Field(
        None,
        description="Serve exactly the shards in this folder, in place, as in an image that the image "
        "builder published; no pointer is followed. The process is ready once all of them are served.",
    )
    work_folder: Path | None = Field(
        None,
        description="Without SHASHIN_SHARDS_FOLDER required: cache folder for mapped shards, of this "
        "process alone: empty or missing at the first start; its content is disposable.",
    )
    poll_seconds: float = Field(
        0.5, gt=0, description="Seconds between reads of the tier's pointer."
    )
    on_lost_records: OnLostRecords = Field(
        "stop",
        description="What to do with a shard when listings.hidden no longer has what was hidden after "
        "the shard's snapshots: `stop` serves it not and reports the gap on /healthz, `continue` "
        "serves it with what is known and counts the gap in shashin_lost_records_total; sold listings "
        "may then be found.",
    )
