"""Makes the errors of failed calls: by the reason that the server sent or, without one, by the status. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from shashin.errors import (
    ApiKeyMissing,
    ApiKeyRefused,
    CallFailed,
    DeadlineExceeded,
    EmbedderOverloaded,
    InvalidQuery,
    ListingNotFound,
    NoEndpoint,
    NotServing,
    Overloaded,
    PhotoEmpty,
    PhotoError,
    PhotoForbidden,
    PhotoMissing,
    PhotoTooLarge,
    PhotoUnavailable,
    PhotoUndecodable,
    RateLimited,
    ServersUnknown,
    ShashinError,
    Unauthenticated,
    Unavailable,
    WrongModelRequested,
)
from shashin.rpc.error_details import DOMAIN

_BY_REASON: dict[str, type[ShashinError]] = {
    error.__name__: error
    for error in (
        ApiKeyMissing,
        ApiKeyRefused,
        DeadlineExceeded,
        EmbedderOverloaded,
        InvalidQuery,
        ListingNotFound,
        NoEndpoint,
        NotServing,
        Overloaded,
        PhotoEmpty,
        PhotoError,
        PhotoForbidden,
        PhotoMissing,
        PhotoTooLarge,
        PhotoUnavailable,
        PhotoUndecodable,
        RateLimited,
        ServersUnknown,
        Unauthenticated,
        Unavailable,
        WrongModelRequested,
    )
}
_BY_STATUS: dict[str, type[ShashinError]] = {
    # A router that stops cancels calls that reach it at that moment.
    "CANCELLED": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAUTHENTICATED": Unauthenticated,
    "UNAVAILABLE": Unavailable,
}
"""Of calls that no router answered, but gRPC or a proxy."""


@dataclass(frozen=True)
class Failure:
    """A call that failed."""

    status: str
    """The name of its gRPC status."""
    error: ShashinError


def failure_of(status: str, message: str, details: bytes | None, address: str) -> Failure:
    """Return the failure of a call to an address.

    ``message`` is that of its status, and ``details`` the google.rpc.Status of its trailing metadata, if it
    has one.
    """
    sent = _Details.parsed(details)
    if not sent.reason:
        return Failure(status, _without_reason(status, message, sent, address))
    # The message begins with the reason.
    words = message.removeprefix(f"{sent.reason}: ")
    known = _BY_REASON.get(sent.reason)
    if known is InvalidQuery:
        error: ShashinError = InvalidQuery(words, field=sent.field)
    elif known is not None:
        error = known(words, retry_after_seconds=sent.retry_after_seconds)
    else:
        error = CallFailed(
            words,
            reason=sent.reason,
            retryable=sent.retryable,
            retry_after_seconds=sent.retry_after_seconds,
        )
    return Failure(status, error)


def _without_reason(status: str, message: str, sent: _Details, address: str) -> ShashinError:
    after = sent.retry_after_seconds
    words = f"{address}: {message or 'no details'}"
    if status == "RESOURCE_EXHAUSTED" and after > 0:
        return Overloaded(words, retry_after_seconds=after)
    known = _BY_STATUS.get(status)
    if known is None:
        return CallFailed(f"{words} ({status})", reason=status, retry_after_seconds=after)
    return known(words, retry_after_seconds=after)


@dataclass(frozen=True)
class _Details:
    """What a server says of an error, besides words."""

    reason: str = ""
    retryable: bool = False
    field: str = ""
    retry_after_seconds: float = 0.0

    @classmethod
    def parsed(cls, details: bytes | None) -> _Details:
        """Parse a google.rpc.Status; of one that is garbage, nothing is known."""
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        request = error_details_pb2.BadRequest()
        try:
            for detail in status_pb2.Status.FromString(details or b"").details:
                for known in (info, retry, request):
                    if detail.Is(known.DESCRIPTOR):
                        detail.Unpack(known)
        except DecodeError:
            return cls()
        fields = [violation.field for violation in request.field_violations]
        return cls(
            reason=info.reason if info.domain == DOMAIN else "",
            retryable=info.metadata.get("retryable") == "true",
            field=fields[0] if fields else "",
            retry_after_seconds=max(0.0, retry.retry_delay.ToNanoseconds() / 1e9),
        )
