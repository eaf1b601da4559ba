"""Photos from a real web server over TLS: what is read, what is refused, and by what name."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web

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
from shashin.photo_sources.allow_list import HTTPS_PORT, HostPattern
from shashin.photo_sources.byte_budget import ByteBudget
from shashin.photo_sources.https import HttpsLimits, HttpsSource
from shashin.photo_sources.request_limits import RequestLimits
from shashin.photo_sources.source import SourcePhoto
from tests.support.photo_server import NAME, PhotoServer, hang
from tests.support.waiting import until

MAX_BYTES = 100_000
LOOPBACK = ip_network("127.0.0.0/8")


class Client:
    """An HttpsSource with its limits."""

    def __init__(
        self,
        server: PhotoServer,
        hosts: list[HostPattern] | None = None,
        *,
        private: bool = True,
        seconds: float = 30.0,
        budget: int = MAX_BYTES,
        per_host: int = 4,
    ) -> None:
        self.requests = RequestLimits(total=8, per_host=per_host)
        self.budget = ByteBudget(budget)
        self.source = HttpsSource(
            [HostPattern(NAME, server.port)] if hosts is None else hosts,
            HttpsLimits(MAX_BYTES, connect_seconds=5.0, total_seconds=seconds),
            self.requests,
            private_networks=[LOOPBACK] if private else [],
            ssl_context=server.trusting(),
        )

    async def fetch(self, url: str, known: SourceVersion | None = None) -> SourcePhoto | None:
        with self.budget.lease() as lease:
            return await self.source.fetch(url, lease, known)


MakeClient = Callable[..., Any]


@pytest.fixture
async def server() -> AsyncIterator[PhotoServer]:
    async with PhotoServer() as started:
        yield started


@pytest.fixture
async def client_of(server: PhotoServer) -> AsyncIterator[MakeClient]:
    async with AsyncExitStack() as stack:

        async def make(**options: Any) -> Client:
            client = Client(server, **options)
            await stack.enter_async_context(client.source)
            return client

        yield make


@pytest.fixture
async def client(client_of: MakeClient) -> Client:
    made = await client_of()
    assert isinstance(made, Client)
    return made


async def test_a_photo_is_read_with_its_version(server: PhotoServer, client: Client) -> None:
    server.has("a.jpg", b"photo", ETag='"1"', Last_Modified="Mon, 02 Mar 2026 10:00:00 GMT")
    found = await client.fetch(server.url("a.jpg"))
    expected = SourceVersion('"1"', "Mon, 02 Mar 2026 10:00:00 GMT")
    assert found == SourcePhoto(b"photo", expected)


async def test_a_signed_url_is_requested_letter_by_letter(
    server: PhotoServer, client: Client
) -> None:
    server.has("a b.jpg", b"photo")
    await client.fetch(server.url("a%20b.jpg?sig=a%2Fb%3D&x=%7e"))
    assert server.requests[0].raw_path == "/a%20b.jpg?sig=a%2Fb%3D&x=%7e"


@pytest.mark.parametrize(
    "known",
    [SourceVersion('"1"'), SourceVersion("", "Mon, 02 Mar 2026 10:00:00 GMT")],
    ids=["etag", "last-modified"],
)
async def test_a_known_version_is_not_sent_again(
    server: PhotoServer, client: Client, known: SourceVersion
) -> None:
    server.has("a.jpg", b"photo", ETag='"1"', Last_Modified="Mon, 02 Mar 2026 10:00:00 GMT")
    assert await client.fetch(server.url("a.jpg"), known) is None
    changed = await client.fetch(server.url("a.jpg"), SourceVersion('"0"'))
    assert changed is not None
    assert changed.data == b"photo"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, PhotoMissing),
        (410, PhotoMissing),
        (401, PhotoForbidden),
        (403, PhotoForbidden),
        (451, PhotoForbidden),
        (408, PhotoUnavailable),
        (500, PhotoUnavailable),
        (502, PhotoUnavailable),
        (204, PhotoUnavailable),
        (304, PhotoUnavailable),
    ],
)
async def test_a_status_is_an_error_by_name(
    server: PhotoServer, client: Client, status: int, error: type[PhotoError]
) -> None:
    server.answers("a.jpg", status)
    with pytest.raises(error, match=f"status {status}"):
        await client.fetch(server.url("a.jpg"))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "low", "high"),
    [
        ("3", 3, 3),
        ("0", 0, 0),
        ("Tue, 01 Jan 2999 10:00:00 GMT", 3600, None),
        ("Mon, 02 Mar 2026 10:00:00 GMT", 0, 0),
        ("9" * 5000, 3600, None),
        ("soon", None, None),
        ("Mon, 01 Jan 99999999999999999999 10:00:00 GMT", None, None),
        ("-1", None, None),
    ],
)
async def test_a_host_that_throttles_is_left_alone_for_as_long_as_it_asks(
    server: PhotoServer,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    retry_after: str,
    low: float | None,
    high: float | None,
) -> None:
    pauses: list[float | None] = []
    monkeypatch.setattr(client.requests, "pause", lambda _, seconds: pauses.append(seconds))
    server.answers("a.jpg", status, Retry_After=retry_after)
    with pytest.raises(PhotoUnavailable, match=f"status {status}"):
        await client.fetch(server.url("a.jpg"))
    (pause,) = pauses
    if low is None:
        assert pause is None
    else:
        assert pause is not None
        assert low <= pause <= (high or pause)


async def test_an_empty_photo_is_named(server: PhotoServer, client: Client) -> None:
    server.has("a.jpg", b"")
    with pytest.raises(PhotoEmpty):
        await client.fetch(server.url("a.jpg"))


async def test_a_photo_is_refused_by_its_size_before_it_is_read(
    server: PhotoServer, client: Client
) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(MAX_BYTES + 1)})
        await response.prepare(request)
        return await hang(request)

    server.pages["a.jpg"] = respond
    with pytest.raises(PhotoTooLarge, match=f"has {MAX_BYTES + 1} bytes"):
        await client.fetch(server.url("a.jpg"))
    assert client.budget.taken == 0


async def test_a_photo_of_unknown_size_is_cut_off_at_the_limit(
    server: PhotoServer, client: Client
) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while True:
            await response.write(bytes(10_000))

    server.pages["a.jpg"] = respond
    with pytest.raises(PhotoTooLarge, match="is larger than"):
        await client.fetch(server.url("a.jpg"))


async def test_a_photo_of_unknown_size_takes_the_memory_of_the_largest_until_it_is_read(
    server: PhotoServer, client: Client
) -> None:
    sent, goes_on = asyncio.Event(), asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"pho")
        sent.set()
        await goes_on.wait()
        await response.write(b"to")
        return response

    server.pages["a.jpg"] = respond
    with client.budget.lease() as lease:
        reading = asyncio.ensure_future(client.source.fetch(server.url("a.jpg"), lease))
        await sent.wait()
        await until(lambda: client.budget.taken, "memory is reserved")
        assert client.budget.taken == MAX_BYTES
        goes_on.set()
        assert await reading == SourcePhoto(b"photo", SourceVersion())
        assert client.budget.taken == len(b"photo")
    assert client.budget.taken == 0


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd, gzip"])
async def test_compressed_bytes_are_never_unpacked(
    server: PhotoServer, client: Client, encoding: str
) -> None:
    server.has("a.jpg", gzip.compress(bytes(10_000_000)), Content_Encoding=encoding)
    with pytest.raises(PhotoUndecodable, match="content encoding"):
        await client.fetch(server.url("a.jpg"))
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


async def test_a_connection_cut_in_mid_photo_is_retryable(
    server: PhotoServer, client: Client
) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "5000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    server.pages["a.jpg"] = respond
    with pytest.raises(PhotoUnavailable, match="broke off"):
        await client.fetch(server.url("a.jpg"))
    assert client.budget.taken == 0


@pytest.mark.parametrize("with_headers", [True, False])
async def test_a_photo_that_never_ends_is_given_up_after_the_total_time(
    server: PhotoServer, client_of: MakeClient, with_headers: bool
) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        if with_headers:
            response = web.StreamResponse(headers={"Content-Length": "5000"})
            await response.prepare(request)
        return await hang(request)

    server.pages["a.jpg"] = respond
    client = await client_of(seconds=0.3)
    with pytest.raises(PhotoUnavailable, match="was not complete after"):
        await client.fetch(server.url("a.jpg"))
    assert client.budget.taken == 0


async def test_waiting_for_memory_does_not_count_as_the_host_s_time(
    server: PhotoServer, client_of: MakeClient
) -> None:
    client = await client_of(seconds=0.3)
    server.has("a.jpg", b"photo")
    with client.budget.lease() as other:
        await other.hold(MAX_BYTES)
        waiting = asyncio.ensure_future(client.fetch(server.url("a.jpg")))
        await until(lambda: client.budget.waiting, "the photo waits")
        await asyncio.wait([waiting], timeout=0.4)  # longer than a download may take
        assert not waiting.done()
    found = await waiting
    assert found is not None
    assert found.data == b"photo"


async def test_those_that_wait_for_a_dead_host_fail_with_it(
    server: PhotoServer, client_of: MakeClient
) -> None:
    client = await client_of(seconds=0.3, per_host=3)
    server.pages["a.jpg"] = hang
    outcomes = await asyncio.gather(
        *(client.fetch(server.url("a.jpg")) for _ in range(30)), return_exceptions=True
    )
    assert all(isinstance(outcome, PhotoUnavailable) for outcome in outcomes)
    assert len(server.requests) <= 6


async def test_a_refused_connection_is_retryable(server: PhotoServer, client: Client) -> None:
    await server.stop()
    with pytest.raises(PhotoUnavailable, match="does not respond"):
        await client.fetch(server.url("a.jpg"))


async def test_a_name_that_cannot_be_resolved_is_retryable(client_of: MakeClient) -> None:
    client = await client_of(hosts=[HostPattern("photos.invalid", HTTPS_PORT)])
    with pytest.raises(PhotoUnavailable, match=r"photos\.invalid cannot be resolved"):
        await client.fetch("https://photos.invalid/a.jpg")


async def test_a_certificate_of_an_unknown_authority_is_not_accepted(server: PhotoServer) -> None:
    limits = HttpsLimits(MAX_BYTES, connect_seconds=5.0, total_seconds=30.0)
    source = HttpsSource(
        [HostPattern(NAME, server.port)],
        limits,
        RequestLimits(total=1, per_host=1),
        private_networks=[LOOPBACK],
    )
    async with source:
        with (
            ByteBudget(MAX_BYTES).lease() as lease,
            pytest.raises(PhotoUnavailable, match="certificate"),
        ):
            await source.fetch(server.url("a.jpg"), lease)
    assert not server.requests


# --- what may be read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://example.com/a.jpg", "is at example.com, not a host of SHASHIN_PHOTO_HOSTS"),
        ("https://localhost/a.jpg", "is at localhost, not a host"),
        ("https://127.0.0.1/a.jpg", "is at 127.0.0.1, not a host"),
        ("https://me:secret@localhost:{port}/a.jpg", "user name or password"),
        ("https://me@localhost:{port}/a.jpg", "user name or password"),
        ("https://localhost:{port}/a b.jpg", "blanks or control characters"),
        ("https://localhost:{port}/a\r\nX: y", "blanks or control characters"),
        ("https://localhost:{port}\\@example.com/a.jpg", None),
        ("https:///a.jpg", None),
        ("https://localhost:99999/a.jpg", None),
        ("https://[::1/a.jpg", None),
    ],
)
async def test_other_addresses_are_forbidden_without_a_request(
    server: PhotoServer, client: Client, url: str, message: str | None
) -> None:
    with pytest.raises(PhotoForbidden, match=message) as refused:
        await client.fetch(url.replace("{port}", str(server.port)))
    assert "secret" not in refused.value.message
    assert not server.requests


async def test_a_private_address_is_refused_where_no_network_allows_it(
    server: PhotoServer, client_of: MakeClient
) -> None:
    client = await client_of(private=False)
    server.has("a.jpg", b"photo")
    with pytest.raises(PhotoForbidden, match="SHASHIN_PHOTO_PRIVATE_NETWORKS"):
        await client.fetch(server.url("a.jpg"))
    assert not server.requests


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.1", "224.0.0.1"]
)
async def test_an_address_instead_of_a_name_is_checked_as_well(
    client_of: MakeClient, host: str
) -> None:
    client = await client_of(hosts=[HostPattern(host, HTTPS_PORT)], private=False)
    shown = f"[{host}]" if ":" in host else host
    with pytest.raises(PhotoForbidden, match="which is not public"):
        await client.fetch(f"https://{shown}/a.jpg")


async def test_what_is_connected_to_is_what_was_checked_whatever_a_name_resolves_to(
    server: PhotoServer, client_of: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["93.184.216.34", "127.0.0.1"]
    connected = []
    client = await client_of(private=False)
    resolve = asyncio.get_running_loop().getaddrinfo

    async def rebinding(host: str, port: int, **options: Any) -> Any:
        return await resolve(answers.pop(0), port, **options)

    async def connect(sock: socket.socket, address: Any) -> None:
        connected.append(address)
        sock.close()
        raise ConnectionRefusedError

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", rebinding)
    monkeypatch.setattr(loop, "sock_connect", connect)
    with pytest.raises(PhotoUnavailable):
        await client.fetch(server.url("a.jpg"))
    client.source._session.connector.clear_dns_cache()
    with pytest.raises(PhotoForbidden, match=r"127\.0\.0\.1, which is not public"):
        await client.fetch(server.url("a.jpg"))
    assert connected == [("93.184.216.34", server.port)]


async def test_a_redirect_is_followed_to_an_allowed_host(
    server: PhotoServer, client: Client
) -> None:
    server.has("real.jpg", b"photo", ETag='"1"')
    server.answers("b.jpg", 307, Location="/real.jpg")
    server.answers("a.jpg", 302, Location=server.url("b.jpg"))
    assert await client.fetch(server.url("a.jpg")) == SourcePhoto(b"photo", SourceVersion('"1"'))
    assert await client.fetch(server.url("a.jpg"), SourceVersion('"1"')) is None


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("https://example.com/a.jpg", "redirects to https://example.com/a.jpg, which is at"),
        ("http://localhost:{port}/a.jpg", "is not an https:// address"),
        ("//169.254.169.254/latest", "which is at 169.254.169.254"),
        ("file:///etc/passwd", "is not an https:// address"),
        ("https://me:secret@localhost:{port}/a.jpg", "user name or password"),
        ("https://[::1", "is not an address"),
        ("", "is not an address"),
        ("a.jpg", "redirects more than 5 times"),
    ],
)
async def test_a_redirect_to_anything_else_is_forbidden(
    server: PhotoServer, client: Client, location: str, message: str
) -> None:
    server.answers("a.jpg", 302, Location=location.replace("{port}", str(server.port)))
    with pytest.raises(PhotoForbidden, match=message):
        await client.fetch(server.url("a.jpg"))
    assert len(server.requests) <= 6


async def test_a_redirect_to_a_private_address_is_refused_even_if_its_host_is_allowed(
    server: PhotoServer, client_of: MakeClient
) -> None:
    inside = HostPattern("10.0.0.1", HTTPS_PORT)
    client = await client_of(hosts=[HostPattern(NAME, server.port), inside])
    server.answers("a.jpg", 302, Location="https://10.0.0.1/a.jpg")
    with pytest.raises(PhotoForbidden, match=r"10\.0\.0\.1, which is not public"):
        await client.fetch(server.url("a.jpg"))
