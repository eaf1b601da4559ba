"""Translates the API's failures into the project's errors. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from shashin.errors import (
    KubernetesConflict,
    KubernetesError,
    KubernetesForbidden,
    KubernetesGone,
    KubernetesInvalid,
    KubernetesNotFound,
    KubernetesUnauthenticated,
    KubernetesUnavailable,
)
from shashin.kube.resource import Request

MAX_RETRY_AFTER_SECONDS = 60.0
"""A server that asks for more is asked again after this long."""

_KINDS: Mapping[int, type[KubernetesError]] = {
    401: KubernetesUnauthenticated,
    403: KubernetesForbidden,
    404: KubernetesNotFound,
    409: KubernetesConflict,
    410: KubernetesGone,
}
"""What is not here is a request that the server does not accept: an invalid one."""

_TRANSIENT = (408, 429)
_MAX_TEXT = 300
_MAX_CAUSES = 10


def failure(
    status: int, headers: Mapping[str, str], body: bytes, request: Request
) -> KubernetesError:
    """Return the error for a response that is not a success.

    ``body`` is usually a ``Status`` object, but may be anything: proxies answer, too.
    """
    return failure_of(_status_object(body) or {"message": _text(body)}, request, status, headers)


def failure_of(
    found: Mapping[str, Any],
    request: Request,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> KubernetesError:
    """Return the error for a ``Status`` object, of a response or of a watch event."""
    code = status or _integer(found.get("code")) or 500
    message = _shortened(str(found.get("message") or f"HTTP status {code}"))
    if code in _TRANSIENT or code >= 500:
        return KubernetesUnavailable(
            f"cannot {request}: HTTP status {code}: {message}",
            retry_after_seconds=_retry_after(found, headers or {}),
        )
    kind = _KINDS.get(code, KubernetesInvalid)
    advice = ""
    if kind is KubernetesForbidden:
        advice = (
            f"; grant the verb {request.verb!r} on {_rbac_resource(request)!r} of API group "
            f"{request.resource.group!r} {_rbac_scope(request)}"
        )
    elif kind is KubernetesUnauthenticated:
        advice = (
            "; the API server does not accept the credentials: check the service account's token or "
            "the kubeconfig's user"
        )
    elif kind is KubernetesInvalid:
        # The message repeats them, in one long line.
        message = _causes(found) or message
    return kind(f"cannot {request}: {message}{advice}")


def _rbac_resource(request: Request) -> str:
    plural = request.resource.plural
    return f"{plural}/{request.subresource}" if request.subresource else plural


def _rbac_scope(request: Request) -> str:
    if request.namespace is None:
        return "in a ClusterRole"
    return f"in a Role of namespace {request.namespace!r}"


def _status_object(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def _causes(found: Mapping[str, Any]) -> str:
    details = found.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    if not isinstance(causes, list):
        return ""
    texts = [
        f"{cause.get('field') or '?'}: {cause.get('message') or cause.get('reason') or '?'}"
        for cause in causes
        if isinstance(cause, dict)
    ]
    left_out = len(texts) - _MAX_CAUSES
    shown = [_shortened(text) for text in texts[:_MAX_CAUSES]]
    return "; ".join(shown + ([f"and {left_out} more"] if left_out > 0 else []))


def _retry_after(found: Mapping[str, Any], headers: Mapping[str, str]) -> float:
    details = found.get("details")
    in_body = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    # A date instead of seconds is allowed by HTTP, but no API server sends one.
    for seconds in (_number(headers.get("Retry-After")), _number(in_body)):
        if seconds is not None and seconds > 0:
            return min(seconds, MAX_RETRY_AFTER_SECONDS)
    return 0.0


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
