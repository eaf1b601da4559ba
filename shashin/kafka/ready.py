"""Checks that Kafka is usable: its port opens before its consumer groups work."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from shashin.errors import KafkaUnavailable

_GROUP = "shashin-ready"
_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 10.0

logging.getLogger("aiokafka").addHandler(logging.NullHandler())


async def require_groups(bootstrap: str, cluster_id: str) -> None:
    """Describe a consumer group, which succeeds once the coordinator has loaded its log.

    This creates no group. ``bootstrap`` is HOST:PORT.

    Raises:
        KafkaUnavailable: when the port is closed, belongs to another cluster, or no coordinator
            responds yet.
    """
    host, _, port = bootstrap.rpartition(":")
    try:
        # The client library logs an error for a closed port, so check the port first.
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        async with asyncio.timeout(_ANSWER_SECONDS):
            await _describe_group(bootstrap, cluster_id)
    except (OSError, KafkaError, TimeoutError) as error:
        raise KafkaUnavailable(f"kafka at {bootstrap} does not respond: {error!r}") from error


async def _describe_group(bootstrap: str, cluster_id: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        # Another Kafka may have taken the port first.
        if (other := (await admin.describe_cluster())["cluster_id"]) != cluster_id:
            raise KafkaUnavailable(
                f"kafka at {bootstrap} is cluster {other}, not {cluster_id}: another one has the port"
            )
        for response in await admin.describe_consumer_groups([_GROUP]):
            for code, *_ in response.groups:
                if code:
                    raise for_code(code)
    finally:
        await admin.close()
