"""Photos on web servers: ``https://HOST/PATH``, from allowed hosts at public addresses only."""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.client_exceptions import ClientConnectorDNSError
from yarl import URL

from shashin.errors import (
    PhotoEmpty,
    PhotoError,
    PhotoForbidden,
    PhotoMissing,
    PhotoTooLarge,
    PhotoUnavailable,
    PhotoUndecodable,
)
from shashin.originals import SourceVersion
from shashin.photo_sources.allow_list import (
    HTTPS_PORT,
    HostPattern,
    Network,
    is_public,
    reached_address,
)
from shashin.photo_sources.byte_budget import Lease
from shashin.photo_sources.request_limits import RequestLimits
from shashin.photo_sources.source import SourcePhoto
from shashin.photo_sources.time_limit import TimeLimit

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RETRYABLE = frozenset({408, 425, 429})
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "shashin"}
_MAX_HEADER_BYTES = 1024
"""Longest ETag that is remembered."""


@dataclass(frozen=True)
class HttpsLimits:
    """What one photo may take."""

    max_bytes: int
    connect_seconds: float
    total_seconds: float
    """From the first request to the last byte; without waits for memory or for a slot."""


class _AddressRefused(OSError):
    """An address that photos may not be read from.

    The text is the same for every address of a host, so that the connector raises this error and
    no combined one when it refuses them all.
    """

    def __init__(self, address: str) -> None:
        super().__init__("the address is not public")
        self.address = address


class HttpsSource:
    """Reads ``https://`` photos; an async context manager.

    Addresses are checked where sockets are made, after name resolution and for every redirect, so
    what is connected to is what was checked, whatever a name resolves to the next time.
    """

    def __init__(
        self,
        hosts: Sequence[HostPattern],
        limits: HttpsLimits,
        requests: RequestLimits,
        *,
        private_networks: Sequence[Network] = (),
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = hosts
        self._limits = limits
        self._requests = requests
        self._private_networks = private_networks
        self._ssl = ssl_context or ssl.create_default_context()
        self._open_session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._open_session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ssl=self._ssl, socket_factory=self._checked_socket
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._limits.connect_seconds, sock_read=None
            ),
        )
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._open_session is not None
        await self._open_session.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self._open_session is not None, "not entered"
        return self._open_session

    def _checked_socket(
        self, found: tuple[int, int, int, str, tuple[str | int, ...]]
    ) -> socket.socket:
        family, kind, protocol, _, address = found
        reached = reached_address(str(address[0]))
        if not is_public(reached) and not any(
            reached.version == network.version and reached in network
            for network in self._private_networks
        ):
            raise _AddressRefused(str(address[0]))
        return socket.socket(family, kind, protocol)

    async def fetch(
        self, uri: str, lease: Lease, known: SourceVersion | None = None
    ) -> SourcePhoto | None:
        """Return the photo at a URL, after at most five redirects."""
        url = self._allowed(uri, uri)
        time_limit = TimeLimit(self._limits.total_seconds)
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._fetch(url, uri, lease, known, time_limit)
            if not isinstance(found, URL):
                return found
            url = self._allowed(str(found), uri)
        raise PhotoForbidden(f"{uri} redirects more than {MAX_REDIRECTS} times")

    def _allowed(self, text: str, uri: str) -> URL:
        """Return a URL that may be requested; ``uri`` is the photo's own, for errors."""
        if any(character <= " " or character == "\x7f" for character in text):
            raise PhotoForbidden(f"{text!r} has blanks or control characters: escape them")
        where = uri if text == uri else f"{uri} redirects to {text}, which"
        try:
            # Signed URLs are only valid letter by letter.
            url = URL(text, encoded=text.isascii())
            host, port = (url.raw_host or "").lower().rstrip("."), url.port
        except ValueError as error:
            raise PhotoForbidden(f"{where} is malformed ({error})") from None
        if url.raw_user is not None or url.raw_password is not None:
            raise PhotoForbidden(
                "the photo's address has a user name or password in it: use a signed URL"
            )
        if url.scheme != "https":
            raise PhotoForbidden(f"{where} is not an https:// address")
        if not any(pattern.matches(host, port or HTTPS_PORT) for pattern in self._hosts):
            raise PhotoForbidden(f"{where} is at {_place(url)}, not a host of SHASHIN_PHOTO_HOSTS")
        return url

    async def _fetch(
        self,
        url: URL,
        uri: str,
        lease: Lease,
        known: SourceVersion | None,
        time_limit: TimeLimit,
    ) -> SourcePhoto | URL | None:
        """Send one request; returns where it is redirected to, if it is."""
        host = _place(url)
        async with self._requests.request(host):
            try:
                async with (
                    time_limit.counted(),
                    self._session.get(
                        url,
                        headers=_conditions(known),
                        allow_redirects=False,
                    ) as response,
                ):
                    self._requests.answered(host)
                    if response.status in _REDIRECTS:
                        return _location(response, uri)
                    if response.status == 304 and known is not None:
                        return None
                    self._check_status(response, host, uri)
                    wanted = self._wanted_bytes(response, uri)
                    await time_limit.uncounted(lease.hold(wanted))
                    data = await self._body(response, uri)
            except aiohttp.ClientError as error:
                raise self._named(error, host, uri) from error
            except TimeoutError:
                self._requests.unanswered(host)
                raise PhotoUnavailable(
                    f"{uri} was not complete after {self._limits.total_seconds:.0f} s"
                ) from None
        lease.shrink(len(data))
        return SourcePhoto(data, _version(response))

    def _check_status(self, response: aiohttp.ClientResponse, host: str, uri: str) -> None:
        status = response.status
        if status == 200:
            encoding = response.headers.get("Content-Encoding", "identity").lower()
            if encoding not in {"", "identity"}:
                # A few bytes could unpack to any number, and no photo gets smaller by it.
                raise PhotoUndecodable(
                    f"{uri} came with the content encoding {encoding[:40]!r}; expected none"
                )
            return
        if status in {404, 410}:
            raise PhotoMissing(f"there is no photo at {uri} (status {status})")
        if status in _RETRYABLE or status >= 500:
            if status in {429, 503}:
                self._requests.pause(host, _retry_after(response))
            raise PhotoUnavailable(f"{uri} is not available at the moment (status {status})")
        if status >= 400:
            raise PhotoForbidden(f"{host} refuses to send {uri} (status {status})")
        raise PhotoUnavailable(f"{host} answered with status {status} for {uri}; expected 200")

    def _wanted_bytes(self, response: aiohttp.ClientResponse, uri: str) -> int:
        size = response.content_length
        if size is None:
            return self._limits.max_bytes
        if size > self._limits.max_bytes:
            raise PhotoTooLarge(
                f"{uri} has {size} bytes; at most {self._limits.max_bytes} are allowed"
            )
        return size

    async def _body(self, response: aiohttp.ClientResponse, uri: str) -> bytes:
        # BytesIO hands its buffer over without a copy.
        data = io.BytesIO()
        async for chunk in response.content.iter_any():
            if data.tell() + len(chunk) > self._limits.max_bytes:
                raise PhotoTooLarge(f"{uri} is larger than {self._limits.max_bytes} bytes")
            data.write(chunk)
        if not data.tell():
            raise PhotoEmpty(f"the photo at {uri} has no bytes: upload it again")
        return data.getvalue()

    def _named(self, error: aiohttp.ClientError, host: str, uri: str) -> PhotoError:
        if isinstance(error, aiohttp.InvalidURL):
            return PhotoForbidden(f"{uri} is malformed ({error})")
        if isinstance(error, aiohttp.ClientConnectorError):
            if isinstance(error.os_error, _AddressRefused):
                return PhotoForbidden(
                    f"{uri}: {host} has the address {error.os_error.address}, which is not public: "
                    "name its network in SHASHIN_PHOTO_PRIVATE_NETWORKS if it may be read"
                )
            self._requests.unanswered(host)
            if isinstance(error, ClientConnectorDNSError):
                return PhotoUnavailable(f"{uri}: the name {host} cannot be resolved")
            return PhotoUnavailable(f"{uri}: {host} does not respond ({error})")
        if isinstance(error, aiohttp.ServerTimeoutError):
            self._requests.unanswered(host)
            return PhotoUnavailable(
                f"{uri}: {host} took no connection for {self._limits.connect_seconds:.0f} s"
            )
        return PhotoUnavailable(f"{uri}: {host} broke off ({str(error) or type(error).__name__})")


def _place(url: URL) -> str:
    """Return a URL's host, and its port if it is not the usual one."""
    host = url.raw_host or ""
    return host if url.port == HTTPS_PORT else f"{host}:{url.port}"


def _conditions(known: SourceVersion | None) -> dict[str, str]:
    if known is None:
        return {}
    if known.etag:
        return {"If-None-Match": known.etag}
    return {"If-Modified-Since": known.last_modified} if known.last_modified else {}


def _version(response: aiohttp.ClientResponse) -> SourceVersion:
    found = {
        name: value if len(value := response.headers.get(header, "")) <= _MAX_HEADER_BYTES else ""
        for name, header in (("etag", "ETag"), ("last_modified", "Last-Modified"))
    }
    return SourceVersion(**found)


def _location(response: aiohttp.ClientResponse, uri: str) -> URL:
    location = response.headers.get("Location", "")
    try:
        if location:
            return response.url.join(URL(location, encoded=location.isascii()))
    except ValueError:
        pass
    raise PhotoForbidden(f"{uri} redirects to {location[:200]!r}, which is not an address")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Return the seconds that a host asks to wait; None if it names none."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
