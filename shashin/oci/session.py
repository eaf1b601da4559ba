"""Requests to registries: authorization, translated errors, and retries.

Only headers that are meant for a registry are sent to it: redirects to another host, where blobs may
be stored, carry no authorization (aiohttp removes it), and passwords never travel without TLS unless
the registry is one that is spoken to without.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from yarl import URL

from shashin.errors import (
    ImageNotFound,
    RegistryDenied,
    RegistryError,
    RegistryFull,
    RegistryLoginRefused,
    RegistryUnavailable,
)
from shashin.oci import google_login
from shashin.oci.access import RegistryAccess
from shashin.oci.challenges import Challenge, parse_challenge
from shashin.oci.credentials import Credentials
from shashin.oci.references import Repository
from shashin.printable import printable
from shashin.runtime.backoff import Patience
from shashin.runtime.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 10.0
"""Longer outages are left to the caller, which logs its own retries."""

CONNECT_SECONDS = 5.0
STALL_SECONDS = 60.0
"""How long nothing may be sent or received."""

_LONGEST_PAUSE_SECONDS = 2.0
_CONNECTIONS = 16
_MAX_ERROR_BYTES = 64 * 1024
_MAX_TOKEN_BYTES = 1024 * 1024
_MAX_REDIRECTS = 5
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_NOT_PERMITTED = {401, 403, 405}
_FULL = ("no space left", "disk quota", "quota exceeded", "insufficient storage")
_CLIENT = "shashin"

Body = Callable[[], AsyncGenerator[bytes]]


@dataclass(frozen=True)
class Scope:
    """What requests are made for: tokens permit as much and no more."""

    repository: Repository
    actions: str = "pull"
    """``pull``, ``pull,push`` or ``delete``."""
    also_pull: Repository | None = None
    """Another repository of the registry, that blobs are mounted from."""

    @property
    def texts(self) -> tuple[str, ...]:
        """As token servers are asked for it."""
        own = f"repository:{self.repository.path}:{self.actions}"
        if self.also_pull is None:
            return (own,)
        return own, f"repository:{self.also_pull.path}:pull"


class RegistrySession:
    """The connections of one process to any registries; an async context manager."""

    def __init__(self, access: RegistryAccess, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._access = access
        self._retry_seconds = retry_seconds
        self._authorization: dict[tuple[str, tuple[str, ...]], str] = {}
        self._opened: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._opened = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_CONNECTIONS, ssl=await asyncio.to_thread(self._access.ssl_context)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": _CLIENT, "Accept-Encoding": "identity"},
            auto_decompress=False,
            requote_redirect_url=False,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS
            ),
        )
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self._opened is not None, "not entered"
        return self._opened

    def url(self, repository: Repository, rest: str) -> URL:
        """Return the URL of something in a repository: ``blobs/sha256:...``."""
        base = self._access.base_url(repository.registry)
        return URL(f"{base}/v2/{repository.path}/{rest}", encoded=True)

    def location(self, repository: Repository, response: aiohttp.ClientResponse) -> URL:
        """Return where an answer says that an upload goes on.

        Raises:
            RegistryError: when it says nothing, or to go on without TLS.
        """
        where = response.headers.get("Location", "")
        if not where:
            raise RegistryError(
                f"the registry of {repository} answered {response.status} without a Location: it "
                "does not speak the protocol of OCI registries; check its address"
            )
        url = response.url.join(URL(where, encoded=True))
        if url.scheme != "https" and not self._is_plain(repository):
            raise RegistryError(
                f"the registry of {repository} sends uploads to {url.origin()}, without TLS: correct "
                "the address that it believes to have (in distribution: http.host), or list it in "
                "SHASHIN_REGISTRY_PLAIN_HTTP"
            )
        return url

    def _is_plain(self, repository: Repository) -> bool:
        return repository.registry in self._access.plain_http

    async def retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what ``attempt`` returns; what can be retried is, for ``retry_seconds``."""
        patience = self.patience()
        while True:
            try:
                return await attempt()
            except RegistryUnavailable as error:
                await patience.pause(error)
                log.info("the registry is asked again", error=error.message)

    def patience(self) -> Patience:
        """Return what bounds the retries of one operation."""
        return Patience(self._retry_seconds, longest_pause=_LONGEST_PAUSE_SECONDS)

    @asynccontextmanager
    async def respond(
        self,
        method: str,
        url: URL,
        scope: Scope,
        *,
        expected: frozenset[int],
        headers: Mapping[str, str] | None = None,
        body: Body | bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make one request, twice if it has to log in first; the response's body is not read.

        Raises:
            RegistryUnavailable: when there is no answer, or one that a retry may change.
            RegistryError: a subclass for any other status than those ``expected``.
        """
        sent = self._authorization_for(url, scope)
        for attempt in (1, 2):
            async with self._request(method, url, scope, headers or {}, body, sent) as response:
                if response.status != HTTPStatus.UNAUTHORIZED or (
                    attempt == 2 and HTTPStatus.UNAUTHORIZED not in expected
                ):
                    if response.status not in expected:
                        raise await self._error(response, scope)
                    yield response
                    return
                challenge = parse_challenge(response.headers.getall("WWW-Authenticate", []))
            sent = await self._log_in(challenge, scope)
            self._authorization[self._key(scope)] = sent

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: URL,
        scope: Scope,
        headers: Mapping[str, str],
        body: Body | bytes | None,
        authorization: str,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        sent = {**headers, **({"Authorization": authorization} if authorization else {})}
        reads = method in {"GET", "HEAD"}
        with _translated(scope.repository):
            async with self._session.request(
                method,
                url,
                headers=sent,
                data=body() if callable(body) else body,
                allow_redirects=reads,
                max_redirects=_MAX_REDIRECTS,
            ) as response:
                yield response

    def _key(self, scope: Scope) -> tuple[str, tuple[str, ...]]:
        return scope.repository.registry, scope.texts

    def _authorization_for(self, url: URL, scope: Scope) -> str:
        """Return the header for a URL that the registry named: nothing for another host."""
        own = URL(self._access.base_url(scope.repository.registry))
        return self._authorization.get(self._key(scope), "") if url.origin() == own else ""

    async def _log_in(self, challenge: Challenge | None, scope: Scope) -> str:
        """Return the header ``Authorization`` that a challenge asks for."""
        credentials = await self._credentials(scope.repository)
        if credentials is not None and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        if challenge is None:
            raise RegistryLoginRefused(
                f"the registry of {scope.repository} asks for a login that is neither Basic nor "
                "Bearer: check its address"
            )
        if challenge.scheme == "basic":
            if credentials is None or not credentials.username:
                raise _no_credentials(scope.repository)
            return credentials.basic
        return await self.retried(lambda: self._token(challenge, scope, credentials))

    async def _credentials(self, repository: Repository) -> Credentials | None:
        if repository.registry not in self._access.google:
            return self._access.config.credentials(repository)
        return await self.retried(lambda: google_login.google_credentials(self._session))

    async def _token(
        self, challenge: Challenge, scope: Scope, credentials: Credentials | None
    ) -> str:
        realm = URL(challenge.realm)
        if realm.scheme != "https" and not self._is_plain(scope.repository):
            raise RegistryLoginRefused(
                f"the registry of {scope.repository} asks to log in at {challenge.realm[:200]!r}, "
                "without TLS: it is refused; list the registry in SHASHIN_REGISTRY_PLAIN_HTTP if "
                "nobody else can reach that network"
            )
        scopes = list(dict.fromkeys((*scope.texts, *challenge.scopes)))
        with _translated(scope.repository, realm.host or ""):
            async with self._token_request(realm, challenge, scopes, credentials) as response:
                if response.status != HTTPStatus.OK:
                    raise await self._token_error(response, scope, credentials)
                data = await response.content.read(_MAX_TOKEN_BYTES)
                while more := await response.content.read(_MAX_TOKEN_BYTES):
                    data += more
                    if len(data) > _MAX_TOKEN_BYTES:
                        break
        try:
            document = json.loads(data)
            token = document.get("token") or document["access_token"]
        except (ValueError, KeyError, AttributeError) as error:
            raise RegistryLoginRefused(
                f"{realm.host} gave no token for {scope.repository}: its answer has none"
            ) from error
        return f"Bearer {token}"

    def _token_request(
        self, realm: URL, challenge: Challenge, scopes: list[str], credentials: Credentials | None
    ) -> Any:
        service = [("service", challenge.service)] if challenge.service else []
        if credentials is not None and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token,
                "scope": " ".join(scopes),
                "client_id": _CLIENT,
                **dict(service),
            }
            return self._session.post(realm, data=form, allow_redirects=False)
        headers = {"Authorization": credentials.basic} if credentials else {}
        asked = realm.extend_query([*service, *(("scope", scope) for scope in scopes)])
        return self._session.get(asked, headers=headers, allow_redirects=False)

    async def _token_error(
        self, response: aiohttp.ClientResponse, scope: Scope, credentials: Credentials | None
    ) -> RegistryError:
        if response.status in _TRANSIENT:
            return RegistryUnavailable(
                f"{response.url.host}, which gives tokens for {scope.repository}, answered "
                f"{response.status}: retry later"
            )
        if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return _refused(scope.repository, credentials)
        return RegistryLoginRefused(
            f"{response.url.host}, which gives tokens for {scope.repository}, answered "
            f"{response.status}{await _said(response)}: check the registry's address and its login"
        )

    async def _error(self, response: aiohttp.ClientResponse, scope: Scope) -> RegistryError:
        status, repository = response.status, scope.repository
        said = await _said(response)
        asked = ",".join(response.headers.getall("WWW-Authenticate", []))
        if status == HTTPStatus.UNAUTHORIZED and "insufficient_scope" not in asked:
            if repository.registry in self._access.google:
                return _refused(repository, Credentials(google_login.USER))
            return _refused(repository, self._access.config.credentials(repository))
        if status in _NOT_PERMITTED:
            return _denied(repository, scope.actions, status, said)
        if status == HTTPStatus.NOT_FOUND:
            return ImageNotFound(
                f"{repository}: not found{said}; check the name, and that it was pushed there"
            )
        failure = _failure(repository, status, said)
        return failure or RegistryError(
            f"the registry of {repository} answered {status}{said} to {response.method} "
            f"{response.url.path}: expected success; check its address and its log"
        )


def _failure(repository: Repository, status: int, said: str) -> RegistryError | None:
    """Return the error of a registry that cannot do now what it is asked for."""
    if status == HTTPStatus.INSUFFICIENT_STORAGE or any(text in said.lower() for text in _FULL):
        return RegistryFull(
            f"the registry of {repository} has no space left{said}: give it space, or delete "
            "images that nothing uses and let the registry collect its garbage"
        )
    if status in _TRANSIENT:
        return RegistryUnavailable(
            f"the registry of {repository} answered {status}{said}: retry later, and look into "
            "its log if it goes on"
        )
    return None


def _no_credentials(repository: Repository) -> RegistryLoginRefused:
    return RegistryLoginRefused(
        f"the registry of {repository} asks for a login, and there are no credentials for it: "
        f"docker login {repository.registry}, and name the configuration in DOCKER_CONFIG"
    )


def _refused(repository: Repository, credentials: Credentials | None) -> RegistryLoginRefused:
    if credentials is None:
        return _no_credentials(repository)
    if credentials.username == google_login.USER:
        return RegistryLoginRefused(
            f"the registry of {repository} refused the pod's Google account: give it the role "
            "roles/artifactregistry.writer there"
        )
    who = f"user {credentials.username!r}" if credentials.username else "the given token"
    return RegistryLoginRefused(
        f"the registry of {repository} refused the login of {who}: check the password in the Docker "
        f"configuration (docker login {repository.registry})"
    )


def _denied(repository: Repository, actions: str, status: int, said: str) -> RegistryDenied:
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return RegistryDenied(
            f"the registry of {repository} does not take {actions} at all{said}: permit it there (in "
            "distribution, REGISTRY_STORAGE_DELETE_ENABLED=true permits delete)"
        )
    return RegistryDenied(
        f"the registry denies {actions} in {repository}{said}: give the user that right, or check the "
        "repository's name"
    )


async def _said(response: aiohttp.ClientResponse) -> str:
    """Return what an answer gives as the reason, in brackets; empty if nothing."""
    try:
        data = await response.content.read(_MAX_ERROR_BYTES)
        errors = json.loads(data)["errors"]
        parts = [
            " ".join(str(e[key]) for key in ("code", "message", "detail") if e.get(key))
            for e in errors[:3]
        ]
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f" ({printable('; '.join(parts)[:400])})" if parts else ""


@contextmanager
def _translated(repository: Repository, host: str = "") -> Iterator[None]:
    """Raise errors of connections as errors of the registry, or of the host that gives tokens."""
    who = (
        f"{host}, which gives tokens for {repository}," if host else f"the registry of {repository}"
    )
    try:
        yield
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as error:
        raise RegistryError(
            f"{who} cannot be trusted: {printable(str(error)[:300])}; name the authority of its "
            "certificate in SHASHIN_REGISTRY_CA_FILE, or list the registry in "
            "SHASHIN_REGISTRY_PLAIN_HTTP if it has no TLS"
        ) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        why = str(error) or type(error).__name__
        raise RegistryUnavailable(
            f"{who} does not respond: {printable(why[:300])}; check that it runs and can be reached"
        ) from error
