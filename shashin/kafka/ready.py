"""Whether a Kafka can be worked with: the port is open before its consumer groups work."""

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
    """Ask a group's coordinator for the group, which is answered once its log is loaded.

    No group is made by this. ``bootstrap`` is HOST:PORT.

    Raises:
        KafkaUnavailable: when the port is closed, when another cluster answers there, or when no
            coordinator answers yet.
    """
    host, _, port = bootstrap.rpartition(":")
    try:
        # The client library reports a closed port as an error on its log, so it is not asked yet.
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        async with asyncio.timeout(_ANSWER_SECONDS):
            await _ask(bootstrap, cluster_id)
    except (OSError, KafkaError, TimeoutError) as error:
        raise KafkaUnavailable(f"kafka at {bootstrap} does not answer: {error!r}") from error


async def _ask(bootstrap: str, cluster_id: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        # Another Kafka may have been quicker to take the port.
        if (other := (await admin.describe_cluster())["cluster_id"]) != cluster_id:
            raise KafkaUnavailable(
                f"kafka at {bootstrap} is cluster {other}, not {cluster_id}: another one has the port"
            )
        for answer in await admin.describe_consumer_groups([_GROUP]):
            for code, *_ in answer.groups:
                if code:
                    raise for_code(code)
    finally:
        await admin.close()
