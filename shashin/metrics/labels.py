"""The labels that several areas share, each with its bound."""

from __future__ import annotations

from shashin.errors import ShashinError
from shashin.metrics.definitions import Label
from shashin.tiers import SEALED_TIERS, TIERS


def _names_below(error: type[ShashinError]) -> list[str]:
    below = [name for child in error.__subclasses__() for name in _names_below(child)]
    return [error.__name__, *below] if error.__module__ == "shashin.errors" else below


ERRORS = tuple(dict.fromkeys(_names_below(ShashinError)))
"""The reasons of all errors."""

GRPC_STATUSES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)

TIER = Label("tier", "the tier of shards; empty if it is not known", values=("", *TIERS))
SEALED_TIER = Label("tier", "the tier of shards", values=SEALED_TIERS)
MODEL = Label("model", "the embedding model", at_most=16)
TOPIC = Label("topic", "the Kafka topic", at_most=16)
CONSUMED_TOPIC = Label("topic", "the Kafka topic that the process consumes", at_most=4)
PARTITION = Label("partition", "the partition of the topic", at_most=1024)
REASON = Label("reason", "the error, as in shashin/errors.py", values=ERRORS)
METHOD = Label("method", "the method of the gRPC service", at_most=24)
STATUS = Label("status", "the gRPC status", values=GRPC_STATUSES)
