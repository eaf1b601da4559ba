"""A real S3 server on the loopback: SeaweedFS, from its wheel."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import aioboto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from shashin.local.ports import HOST, free_port
from tests.support.waiting import until

SERVER_VARIABLE = "SHASHIN_TEST_S3"
"""URL of another S3 server to use instead, with credentials in boto's variables."""

BUCKET_VARIABLE = "SHASHIN_TEST_S3_BUCKET"
"""An existing bucket on that server."""

BUCKET = os.environ.get(BUCKET_VARIABLE, "shashin-test")

ACCESS_KEY = "shashin"
SECRET = "the secret of the tests"

_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port"),
    *("filer.port.grpc", "s3.port", "s3.port.grpc", "admin.port", "admin.port.grpc"),
)


class SeaweedFs:
    """One server with one bucket; its objects are files in ``folder`` and survive a kill."""

    def __init__(self, folder: Path, *, host: str = HOST) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        ports = {name: free_port(host) for name in _PORTS}
        self.port = ports["s3.port"]
        self.url = f"http://{host}:{self.port}"
        self._log = folder / "log"
        (folder / "objects").mkdir(exist_ok=True)
        self._command = [
            str(Path(sys.executable).with_name("weed")),
            *("-logtostderr=true", "mini", f"-dir={folder / 'objects'}", f"-bucket={BUCKET}"),
            *(f"-ip={host}", f"-ip.bind={host}"),
            *(f"-{name}={port}" for name, port in ports.items()),
            *(f"-{part}.localSocket={folder / part}.sock" for part in ("filer", "s3")),
            # Everything that the tests do not need.
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"),
            *("-master.telemetry=false", "-s3.autoCreateBucket=false"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make boto use this server, whatever else is configured here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    async def start(self) -> None:
        """Start it and wait until it is ready; can be called again after a kill."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(  # noqa: ASYNC220
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        self._process = process

        session = aioboto3.Session(ACCESS_KEY, SECRET, region_name="us-east-1")
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        async with session.client("s3", endpoint_url=self.url, config=config) as client:

            async def takes_objects() -> bool:
                assert process.poll() is None, f"weed ended:\n{self._log.read_text()[-5000:]}"
                try:
                    await client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
                except (BotoCoreError, ClientError):
                    return False
                return True

            await until(takes_objects, "SeaweedFS takes objects")

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
