"""A topic's id: it tells a topic from one of the same name that was deleted.

aiokafka knows Metadata up to version 5, and ids came with version 10 (KIP-516, Kafka 2.8), so the
messages of version 12 are here (https://kafka.apache.org/protocol.html#The_Messages_Metadata).
"""

from __future__ import annotations

import uuid
from io import BytesIO
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from shashin.errors import KafkaUnavailable

_METADATA = 3
_VERSION = 12


class _Uuid(AbstractType):  # type: ignore[misc, unused-ignore]
    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


class _MetadataResponse(Response):  # type: ignore[misc, unused-ignore]
    API_KEY = _METADATA
    API_VERSION = _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString()),
                ("port", Int32),
                ("rack", CompactString()),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString()),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc, unused-ignore]
    API_KEY = _METADATA
    API_VERSION = _VERSION
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("name", CompactString()), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataStruct]):  # type: ignore[misc, unused-ignore]
    API_KEY = _METADATA

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        no_id = uuid.UUID(int=0)
        return request_struct_class([(no_id, self._topic, {})], False, False, {})


async def topic_id_of(consumer: AIOKafkaConsumer, topic: str) -> str:
    """Return the id of a topic; empty if the broker is too old to have one.

    Raises:
        KafkaUnavailable: when the broker does not respond, or the topic does not exist (yet).
    """
    client = consumer._client  # noqa: SLF001 - it negotiates the version
    try:
        response: Any = await client.send(client.get_random_node(), _MetadataRequest(topic))
    except NotImplementedError:
        return ""
    except KafkaError as error:
        raise KafkaUnavailable(f"cannot get the id of {topic}: {error!r}") from error
    for code, name, topic_id, *_ in response.topics:
        if name == topic and not code:
            return str(topic_id) if topic_id.int else ""
    raise KafkaUnavailable(f"topic {topic} does not exist")
