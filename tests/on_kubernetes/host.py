"""What runs on this machine: Kafka, the object stores and the embedder, which pods reach by its address."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aioboto3
from botocore.config import Config

from shashin.kafka.topic_admin import ensure_topics
from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import free_port
from shashin.objectstore.gcs import EMULATOR_VARIABLE
from tests.support.fake_gcs import BUCKET as GCS_BUCKET
from tests.support.fake_gcs import FakeGcs
from tests.support.running_service import RunningService
from tests.support.seaweed import ACCESS_KEY, SECRET, SeaweedFs
from tests.support.seaweed import BUCKET as S3_BUCKET

PARTITIONS = 4


@dataclass(frozen=True)
class HostServices:
    """The servers, and how they are reached."""

    address: str
    kafka: str
    gcs_url: str
    s3_url: str
    embedder: str
    """HOST:PORT of its gRPC."""

    @property
    def repository(self) -> str:
        """The model repository's URI."""
        return f"gs://{GCS_BUCKET}/cluster"

    @property
    def environment(self) -> Mapping[str, str]:
        """What the ConfigMap of all pods says of them."""
        return {
            "SHASHIN_KAFKA": self.kafka,
            "SHASHIN_REPOSITORY": self.repository,
            EMULATOR_VARIABLE: self.gcs_url,
            "SHASHIN_PHOTO_BUCKETS": f"s3://{S3_BUCKET}",
            "AWS_ENDPOINT_URL": self.s3_url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    async def put_photos(self, photos: Mapping[str, bytes]) -> dict[str, str]:
        """Store photos on S3; returns their URIs, by the same keys."""
        session = aioboto3.Session(ACCESS_KEY, SECRET, region_name="us-east-1")
        config = Config(s3={"addressing_style": "path"})
        async with session.client("s3", endpoint_url=self.s3_url, config=config) as client:
            for key, photo in photos.items():
                await client.put_object(Bucket=S3_BUCKET, Key=key, Body=io.BytesIO(photo))
        return {key: f"s3://{S3_BUCKET}/{key}" for key in photos}


@asynccontextmanager
async def host_services(
    host: str, folder: Path, *, embedder: bool = True
) -> AsyncIterator[HostServices]:
    """Run all servers while the context is open; without ``embedder``, no photo can be embedded."""
    async with AsyncExitStack() as stack:
        kafka = EmbeddedKafka(folder, port=free_port(host), host=host)
        await kafka.start()
        stack.push_async_callback(kafka.stop)
        await ensure_topics(kafka.bootstrap, partitions=PARTITIONS)
        root = folder / "gcs"
        root.mkdir()
        gcs = FakeGcs(folder / "gcs.log", root=root, host=host)
        await gcs.start()
        stack.push_async_callback(gcs.kill)
        await gcs.make_bucket()
        s3 = SeaweedFs(folder / "s3", host=host)
        await s3.start()
        stack.push_async_callback(s3.kill)
        address = await _embedder(kafka.bootstrap, host, folder, stack) if embedder else ""
        yield HostServices(host, kafka.bootstrap, gcs.url, s3.url, address)


async def _embedder(kafka: str, host: str, folder: Path, stack: AsyncExitStack) -> str:
    settings = {"grpc_host": host, "grpc_port": free_port(host), "torch_threads": 1}
    service = RunningService("embedder", kafka, settings, log=folder / "logs")
    await service.start()
    stack.push_async_callback(service.kill)
    await service.until_ready()
    return f"{host}:{settings['grpc_port']}"
