"""The error hierarchy: each error knows whether it is retryable and its gRPC and HTTP status.

This module imports only the standard library, so that every layer can raise its errors.
gRPC statuses are stored by name (``"UNAVAILABLE"``); ``shashin.rpc`` maps them to codes.
"""

from __future__ import annotations

from typing import ClassVar


class ShashinError(Exception):
    """The base class of all errors that Shashin raises itself."""

    retryable: bool = False
    grpc_status: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        """How long to wait before a retry; 0 if that is not known."""

    @property
    def reason(self) -> str:
        """The error's short name, used in metrics and dead letters."""
        return type(self).__name__


# --- user errors --------------------------------------------------------------------------------


class UserError(ShashinError):
    """A mistake in the user's input: shown as one line, without a traceback."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 400


class SettingsError(UserError):
    """A setting is missing or invalid; the message names its environment variable."""


class WrongTopicSettings(UserError):
    """A topic has settings that correctness cannot rest on; the message has the correction."""


# --- events -------------------------------------------------------------------------------------


class RecordError(ShashinError):
    """A Kafka record that can never be processed: it is dead-lettered.

    The class name is the dead letter's reason. The rules for listing events are in
    services.downloader.validation.
    """

    grpc_status = "INVALID_ARGUMENT"
    http_status = 400


class UnparsableRecord(RecordError):
    """The record's value is not a valid protobuf message of its topic's type."""


class UndecodableBatch(RecordError):
    """A batch of records that an operator skipped, since it cannot be decoded."""


class InvalidEvent(RecordError):
    """The event parses, but violates a rule of its schema (no id, no kind, a bad price)."""


class TooManyPhotos(RecordError):
    """A listing has more photos than one record may carry."""


class StaleVersion(RecordError):
    """A listing's version is lower than an earlier one on its partition."""


class NoUsablePhoto(RecordError):
    """None of a listing's photos is usable, so the listing cannot be searched."""


class WrongVector(RecordError):
    """A vector with another number of values than its model, or not of unit length."""


# --- photos -------------------------------------------------------------------------------------


class PhotoError(ShashinError):
    """One photo cannot be used; the listing's other photos are still processed."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 422


class PhotoMissing(PhotoError):
    """Nothing exists at the photo's URI."""


class PhotoForbidden(PhotoError):
    """The photo's URI has a scheme or location that this installation does not read."""


class PhotoEmpty(PhotoError):
    """The photo has no bytes."""


class PhotoTooLarge(PhotoError):
    """The photo has more bytes or pixels than allowed (a decompression bomb)."""


class PhotoUndecodable(PhotoError):
    """The bytes are not an image of a known format, or the image is truncated or corrupt."""


class PhotoUnavailable(PhotoError):
    """The photo is temporarily unavailable: a retry can help."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


# --- object store and repository ----------------------------------------------------------------


class ObjectStoreError(ShashinError):
    """The object store refused an operation or failed."""

    grpc_status = "UNAVAILABLE"
    http_status = 503


class ObjectNotFound(ObjectStoreError):
    """No object has this key."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class PreconditionFailed(ObjectStoreError):
    """The object's version is not the one that the operation's precondition names."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 412


class ObjectStoreUnavailable(ObjectStoreError):
    """The object store does not respond, or its disk is full: a retry can help."""

    retryable = True


class RepositoryError(ShashinError):
    """The model repository contains something that cannot be served."""

    grpc_status = "DATA_LOSS"


class UnknownFormat(RepositoryError):
    """A manifest, pointer or rows file has a format version that this reader does not know."""


class CorruptShard(RepositoryError):
    """A shard's file is missing or truncated, or its SHA-256 does not match the manifest."""


class CorruptModel(RepositoryError):
    """A published model is incomplete, cut short, or does not have the SHA-256 that was published."""


class DifferentContent(RepositoryError):
    """A key that is never overwritten has something else than what is to be written under it."""


class DiskUnavailable(ShashinError):
    """A local file cannot be written, for example on a full disk, or was lost: a retry can help."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


# --- registries of images -----------------------------------------------------------------------


class RegistryError(ShashinError):
    """A registry of container images refused an operation, or answered something unexpected."""

    grpc_status = "UNAVAILABLE"
    http_status = 502


class RegistryUnavailable(RegistryError):
    """The registry does not respond, or lost a connection: a retry can help."""

    retryable = True
    http_status = 503


class RegistryFull(RegistryError):
    """The registry has no space left: a retry can help once there is some."""

    retryable = True
    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 507


class RegistryLoginRefused(RegistryError):
    """The registry accepts no anonymous access, or not the credentials that it was given."""

    grpc_status = "UNAUTHENTICATED"
    http_status = 401


class RegistryDenied(RegistryError):
    """The registry knows who asks, and does not permit it."""

    grpc_status = "PERMISSION_DENIED"
    http_status = 403


class ImageNotFound(RegistryError):
    """The registry has no such repository, image or blob."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class CorruptBlob(RegistryError):
    """The bytes of a blob or manifest do not have its digest or its size."""

    grpc_status = "DATA_LOSS"


class UnusableImage(RegistryError):
    """An image that layers cannot be appended to: another format or platform, too many layers."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 422


# --- models -------------------------------------------------------------------------------------


class ModelError(ShashinError):
    """The embedding model cannot be loaded or used."""


class ModelNotPublished(ModelError):
    """The model repository has no model of this id."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class PhotoFolderError(UserError):
    """A folder of products, or a photo in it, that a model cannot be fitted on or measured with."""


class EmbedderOverloaded(ModelError):
    """The model's queue of photos is full: a retry can help."""

    retryable = True
    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 429


class UnknownModel(UserError):
    """No model has this name; the message lists the known ones."""


# --- callers ------------------------------------------------------------------------------------


class Unauthenticated(ShashinError):
    """The server does not accept who calls."""

    grpc_status = "UNAUTHENTICATED"
    http_status = 401


class ApiKeyMissing(Unauthenticated):
    """A call without an API key to a server that asks for one."""


class ApiKeyRefused(Unauthenticated):
    """A call with an API key that is malformed, unknown, expired or revoked."""


class RateLimited(ShashinError):
    """The calls with an API key exceed its rate: a later one is answered."""

    retryable = True
    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 429


class Overloaded(ShashinError):
    """The server has as much work as it can do in time: a retry can help."""

    retryable = True
    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 503


class ApiKeyNotFound(UserError):
    """No API key has this id."""

    grpc_status = "NOT_FOUND"
    http_status = 404


# --- search -------------------------------------------------------------------------------------


class InvalidQuery(ShashinError):
    """An invalid query: the message names the field."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 400

    def __init__(self, message: str, *, field: str = "", retry_after_seconds: float = 0.0) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.field = field
        """The field, such as ``filter.prices[0].currency``, as a server told a client; else empty."""


class WrongModelRequested(ShashinError):
    """A query's vectors come from a different model than the endpoint's."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 409


class ListingNotFound(ShashinError):
    """A search by listing names one that is not searchable."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class Unavailable(ShashinError):
    """Nothing answers at the moment: a retry can help."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


class NotServing(Unavailable):
    """The endpoint cannot answer yet, because it does not know which rows are hidden."""


class NoEndpoint(Unavailable):
    """No suitable endpoint is known or ready."""


class DeadlineExceeded(ShashinError):
    """The deadline passed before there was a response."""

    retryable = True
    grpc_status = "DEADLINE_EXCEEDED"
    http_status = 504


class ServersUnknown(Unavailable):
    """It is not known what index servers hold, since some do not respond."""


class CallFailed(ShashinError):
    """A call failed for a reason that this version has no class for: that of a newer server, or of gRPC."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        retryable: bool = False,
        retry_after_seconds: float = 0.0,
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self._reason = reason
        self.retryable = retryable

    @property
    def reason(self) -> str:
        """The reason that the server gave, or the name of the gRPC status."""
        return self._reason


class ClientUnusable(UserError):
    """A client that was closed, or that belongs to another process or event loop."""


# --- builds -------------------------------------------------------------------------------------


class BuildNotFound(UserError):
    """No build has this name."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class BuildRunning(ShashinError):
    """Another process runs the build."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 409


class UnreadableBuild(ShashinError):
    """The record of a build cannot be read."""

    grpc_status = "DATA_LOSS"


class BuildFailed(ShashinError):
    """A build failed or was cancelled; the message says at which step, and why."""


class StepFailed(ShashinError):
    """A step of a build failed; the message is the reason in the build's record."""


# --- Kubernetes ---------------------------------------------------------------------------------


class KubernetesError(ShashinError):
    """The Kubernetes API refused a request, or did not respond."""


class KubernetesUnavailable(KubernetesError):
    """The API server does not respond, is overloaded, or responds with garbage: a retry can help."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


class KubernetesConflict(KubernetesError):
    """The object was changed meanwhile, exists already, or has a field that another manager owns."""

    grpc_status = "ABORTED"
    http_status = 409


class KubernetesGone(KubernetesError):
    """The server no longer has this resource version: list again."""

    grpc_status = "OUT_OF_RANGE"
    http_status = 410


class KubernetesNotFound(KubernetesError):
    """No object has this name, or the cluster does not have this resource."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class KubernetesForbidden(KubernetesError):
    """RBAC does not allow a request; the message names verb, resource and namespace."""

    grpc_status = "PERMISSION_DENIED"
    http_status = 403


class KubernetesUnauthenticated(KubernetesError):
    """The API server does not accept the credentials, even after they were read again."""

    grpc_status = "UNAUTHENTICATED"
    http_status = 401


class KubernetesInvalid(KubernetesError):
    """The API server refused an object or a parameter as invalid; the message has the causes."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 422


# --- processes ----------------------------------------------------------------------------------


class KafkaUnavailable(ShashinError):
    """The broker does not respond: a retry can help."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


class RecordsLost(ShashinError):
    """Records were deleted from the log before they were read: the message names them."""

    grpc_status = "DATA_LOSS"


class TooManyDeadLetters(ShashinError):
    """So many recent records failed that the cause must be this process, not the records."""


class DeadLetterNotFound(ShashinError):
    """No dead letter has this id, or its retention has expired."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class DeadLetterNotOpen(ShashinError):
    """The dead letter has already been replayed or dropped."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 409


class UnexpectedFailure(ShashinError):
    """Processing a record raised an unexpected exception; the log has the traceback."""


class ProcessFailed(ShashinError):
    """A process died or never became ready; the message ends with the last lines of its log."""


class FetchFailed(ShashinError):
    """A one-time download failed: a retry can help."""

    retryable = True
    grpc_status = "UNAVAILABLE"
    http_status = 503


class JarMismatch(ShashinError):
    """A downloaded jar does not match the pinned checksum, so it is not run."""
