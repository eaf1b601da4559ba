"""Creates what the services of docker-compose.yml find: topics, and the model repository's bucket.

Run once before they start, as ``python -m shashin.local.stack_setup``; a repeat changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp

from shashin.errors import ObjectStoreUnavailable, ShashinError, UserError
from shashin.kafka.topic_admin import ensure_topics
from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.runtime.backoff import backoff_seconds

_PARTITIONS_VARIABLE = "SHASHIN_STACK_PARTITIONS"
_ATTEMPTS = 20


async def make_bucket(emulator: str, repository: str) -> None:
    """Make the bucket of a repository ``gs://BUCKET/...`` in an emulator, unless it exists.

    Raises:
        ObjectStoreUnavailable: if the emulator does not respond, or refuses.
    """
    bucket = urlsplit(repository).netloc
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{emulator}/storage/v1/b", json={"name": bucket}) as response,
        ):
            if response.status not in {HTTPStatus.OK, HTTPStatus.CONFLICT}:
                raise ObjectStoreUnavailable(
                    f"bucket {bucket} cannot be made at {emulator}: status {response.status}"
                )
    except aiohttp.ClientError as error:
        raise ObjectStoreUnavailable(f"{emulator} does not respond: {error!r}") from error


async def set_up() -> None:
    """Create topics and bucket, waiting for servers that still start.

    Raises:
        ShashinError: when a server does not come up, or topics have settings that lose records.
    """
    environment = os.environ
    partitions = environment.get(_PARTITIONS_VARIABLE, "2")
    if not (partitions.isascii() and partitions.isdigit() and int(partitions) > 0):
        raise UserError(
            f"{_PARTITIONS_VARIABLE}={partitions!r} is no number of partitions: give one such as 2"
        )
    for attempt, wait in enumerate(backoff_seconds(), start=1):
        try:
            await ensure_topics(environment["SHASHIN_KAFKA"], partitions=int(partitions))
            await make_bucket(environment[EMULATOR_VARIABLE], environment["SHASHIN_REPOSITORY"])
        except ShashinError as error:
            if not error.retryable or attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(wait)
        else:
            return


def main() -> None:
    """Run it; exits with 1 and the error on stderr if it fails."""
    try:
        asyncio.run(set_up())
    except ShashinError as error:
        sys.exit(f"setup: {error.message}")


if __name__ == "__main__":
    main()
