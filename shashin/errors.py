"""The one tree of errors: each knows whether a retry can help and its gRPC and HTTP status.

This module imports nothing beyond the standard library, so that every layer may raise from it.
gRPC statuses are held by name (``"UNAVAILABLE"``); ``shashin.rpc`` maps them to codes.
"""

from __future__ import annotations

from typing import ClassVar


class ShashinError(Exception):
    """The root: something that Shashin can name went wrong."""

    retryable: ClassVar[bool] = False
    grpc_status: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def reason(self) -> str:
        """The error's short name, as metrics and dead letters carry it."""
        return type(self).__name__


# --- a person's mistake -------------------------------------------------------------------------


class UserError(ShashinError):
    """A mistake of whoever typed the command: shown as one line, without a traceback."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 400


class SettingsError(UserError):
    """A setting is missing or wrong; the message names its environment variable."""


# --- events -------------------------------------------------------------------------------------


class RecordError(ShashinError):
    """A Kafka record that can never be processed as it is: it goes to the dead letters.

    Its name is the reason that the dead letter carries. Rules of listing events are in
    services.downloader.validation.
    """

    grpc_status = "INVALID_ARGUMENT"
    http_status = 400


class UnparsableRecord(RecordError):
    """The record's value is not the protobuf message of its topic."""


class InvalidEvent(RecordError):
    """The event parses, but breaks a rule of its schema (no id, no kind, a bad price)."""


class TooManyPhotos(RecordError):
    """A listing names more photos than one record may carry."""


class StaleVersion(RecordError):
    """A listing's version goes backwards on its partition."""


class NoUsablePhoto(RecordError):
    """None of a listing's photos could be used, so nothing of it can be searched."""


class WrongVector(RecordError):
    """A vector whose length is not its model's, or whose numbers are not finite."""


# --- photos -------------------------------------------------------------------------------------


class PhotoError(ShashinError):
    """One photo cannot be used; the listing's other photos go on."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 422


class PhotoMissing(PhotoError):
    """Nothing lies at the photo's URI."""


class PhotoForbidden(PhotoError):
    """The photo's URI is of a kind or a place that this installation does not read."""


class PhotoEmpty(PhotoError):
    """The photo has no bytes."""


class PhotoTooLarge(PhotoError):
    """The photo has more bytes or more pixels than allowed (a decompression bomb)."""


class PhotoUndecodable(PhotoError):
    """The bytes are not an image of a known format, or the image is cut short or broken."""


class PhotoUnavailable(PhotoError):
    """The photo could not be read for now: a retry can help."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


# --- object store and repository ----------------------------------------------------------------


class ObjectStoreError(ShashinError):
    """The object store refused or failed."""

    grpc_status = "UNAVAILABLE"
    http_status = 503


class ObjectNotFound(ObjectStoreError):
    """No object has this key."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class PreconditionFailed(ObjectStoreError):
    """The object's version is not the one that the operation was conditioned on."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 412


class ObjectStoreUnavailable(ObjectStoreError):
    """The object store does not answer, or its disk is full: a retry can help."""

    retryable = True


class RepositoryError(ShashinError):
    """The model repository holds something that cannot be served."""

    grpc_status = "DATA_LOSS"


class UnknownFormat(RepositoryError):
    """A manifest, pointer or rows file has a format version that this reader does not know."""


class CorruptShard(RepositoryError):
    """A shard's file is missing, cut short, or its SHA-256 is not the manifest's."""


class DiskUnavailable(ShashinError):
    """A file cannot be written on this machine, its disk is full perhaps: a retry can help."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


# --- models -------------------------------------------------------------------------------------


class ModelError(ShashinError):
    """The embedding model cannot be loaded or used."""


class EmbedderOverloaded(ModelError):
    """More photos wait for the model than may: a retry can help."""

    retryable = True
    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 429


class UnknownModel(UserError):
    """No model has this name; the message lists what exists."""


# --- search -------------------------------------------------------------------------------------


class InvalidQuery(ShashinError):
    """A query that no index can answer: the message names the field."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 400


class WrongModelRequested(ShashinError):
    """A query's vectors are of another model than the endpoint holds."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 409


class ListingNotFound(ShashinError):
    """A search by listing named one that is not searchable now."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class NoEndpoint(ShashinError):
    """No endpoint that could answer is known or ready."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


class DeadlineExceeded(ShashinError):
    """The answer did not come within its deadline."""

    retryable = True
    grpc_status = "DEADLINE_EXCEEDED"
    http_status = 504


# --- processes ----------------------------------------------------------------------------------


class KafkaUnavailable(ShashinError):
    """The broker does not answer: a retry can help."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


class TooManyDeadLetters(ShashinError):
    """So many of the recent records failed that the fault must be here, not in the records."""


class DeadLetterNotFound(ShashinError):
    """No dead letter has this id, or its topic keeps it no longer."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class DeadLetterNotOpen(ShashinError):
    """The dead letter was replayed or dropped before."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 409


class UnexpectedFailure(ShashinError):
    """Processing a record failed in a way that nobody foresaw; the log has the traceback."""


class ProcessFailed(ShashinError):
    """A process died or never became ready; the message ends with the last lines of its log."""


class FetchFailed(ShashinError):
    """A file that has to be downloaded once could not be: a retry can help."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


class JarMismatch(ShashinError):
    """A downloaded jar is not the one that the project pins, so it is not run."""
