"""What a client can act on without reading a message: google.rpc.Status in a call's trailing metadata.

https://google.aip.dev/193; libraries of gRPC in every language read it.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import grpc
from google.rpc import error_details_pb2, status_pb2

from shashin.errors import InvalidQuery, ShashinError
from shashin.rpc.wire import shortened

DOMAIN = "shashin"
KEY = "grpc-status-details-bin"
_FIELD = re.compile(r"([a-z][a-z0-9_]*)[a-z0-9_.\[\]]*(?= )")


def message_of(error: ShashinError) -> str:
    """Return the message of a call's status; a long one is cut off, and whole in REST."""
    return shortened(f"{error.reason}: {error.message}")


def trailing_metadata(
    error: ShashinError, fields: Collection[str] = ()
) -> tuple[tuple[str, bytes]]:
    """Return the trailing metadata of a call that failed; ``fields`` are those of its request."""
    return ((KEY, status_of(error, fields).SerializeToString()),)


def status_of(error: ShashinError, fields: Collection[str] = ()) -> status_pb2.Status:
    """Return the status of an error, with its details."""
    status = status_pb2.Status(
        code=grpc.StatusCode[error.grpc_status].value[0], message=message_of(error)
    )
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={"retryable": "true" if error.retryable else "false"},
        )
    )
    if isinstance(error, InvalidQuery) and (field := field_of(error.message, fields)):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=field, description=shortened(error.message)
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_seconds > 0:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_seconds * 1e9))
        status.details.add().Pack(retry)
    return status


def field_of(message: str, fields: Collection[str]) -> str:
    """Return the field that a message about an invalid query begins with; empty if it names none of them."""
    found = _FIELD.match(message)
    return found[0] if found is not None and found[1] in fields else ""
