"""What happens to an upload, a download and a login when the registry or the way to it fails."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from shashin.errors import (
    RegistryDenied,
    RegistryError,
    RegistryFull,
    RegistryLoginRefused,
    RegistryUnavailable,
)
from shashin.oci.access import RegistryAccess
from shashin.oci.credentials import Credentials, DockerConfig
from shashin.oci.descriptor import OCI_LAYER, Descriptor
from shashin.oci.references import Reference, Repository, digest_of
from shashin.oci.registry import RegistryClient
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.made_images import blob, push_base
from tests.support.oci_registry import IDENTITY_TOKEN, RegistryServer, Rights, needs_registry
from tests.support.small_disk import mounted_disk

pytestmark = needs_registry

MIB = 1024 * 1024
DATA = os.urandom(MIB) * 24


class Pausing:
    """A blob whose bytes stop half-way until the test goes on."""

    def __init__(self) -> None:
        self.digest = digest_of(DATA)
        self.size = len(DATA)
        self.half_way = asyncio.Event()
        self.go_on = asyncio.Event()
        self.reads = 0

    async def chunks(self) -> AsyncGenerator[bytes]:
        self.reads += 1
        for start in range(0, self.size, MIB):
            if start == self.size // 2:
                self.half_way.set()
                await self.go_on.wait()
            yield DATA[start : start + MIB]


async def content(client: RegistryClient, repository: Repository) -> bytes:
    descriptor = Descriptor(OCI_LAYER, digest_of(DATA), len(DATA))
    async with aclosing(client.blob(repository, descriptor)) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.fixture
async def proxy(plain: RegistryServer) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(plain.port) as running:
        yield running


@pytest.fixture
async def through_proxy(
    plain: RegistryServer, proxy: CuttingProxy, opened: AsyncExitStack
) -> tuple[RegistryClient, Repository]:
    address = proxy.url.removeprefix("http://")
    client = await opened.enter_async_context(RegistryClient(plain.access(address=address)))
    return client, Repository(address, "shop/a")


async def test_an_upload_goes_on_after_a_registry_was_killed_in_the_middle_of_it(
    plain: RegistryServer, opened: AsyncExitStack
) -> None:
    client = await opened.enter_async_context(RegistryClient(plain.access(), retry_seconds=60))
    repository = Repository(plain.address, "shop/a")
    source = Pausing()
    upload = asyncio.ensure_future(client.upload(repository, source))
    await source.half_way.wait()
    await plain.kill()
    source.go_on.set()
    await plain.start()
    await upload
    assert source.reads > 1
    assert await content(client, repository) == DATA


async def test_an_upload_starts_again_if_the_registry_has_lost_it(
    plain: RegistryServer, opened: AsyncExitStack
) -> None:
    client = await opened.enter_async_context(RegistryClient(plain.access(), retry_seconds=60))
    repository = Repository(plain.address, "shop/a")
    source = Pausing()
    upload = asyncio.ensure_future(client.upload(repository, source))
    await source.half_way.wait()
    await plain.kill()
    lost = plain.storage / "docker/registry/v2/repositories/shop/a/_uploads"
    await asyncio.to_thread(shutil.rmtree, lost)
    source.go_on.set()
    await plain.start()
    await upload
    assert await content(client, repository) == DATA


async def test_an_upload_starts_again_if_its_files_vanish_under_it(
    plain: RegistryServer, opened: AsyncExitStack
) -> None:
    client = await opened.enter_async_context(RegistryClient(plain.access(), retry_seconds=60))
    repository = Repository(plain.address, "shop/a")
    source = Pausing()
    upload = asyncio.ensure_future(client.upload(repository, source))
    await source.half_way.wait()
    lost = plain.storage / "docker/registry/v2/repositories/shop/a/_uploads"
    await asyncio.to_thread(shutil.rmtree, lost)
    source.go_on.set()
    await upload
    assert source.reads > 1
    assert await content(client, repository) == DATA


async def test_what_the_registry_has_of_an_upload_is_not_sent_again(
    through_proxy: tuple[RegistryClient, Repository], proxy: CuttingProxy
) -> None:
    client, repository = through_proxy
    proxy.cut("sent", after=20 * MIB)
    await client.upload(repository, blob(DATA))
    assert proxy.cut_connections == 1
    assert proxy.sent_bytes < 1.5 * len(DATA)  # from its start again it would be 1.8 times


@pytest.mark.parametrize("after", [100, 3 * MIB, 20 * MIB])
async def test_an_upload_goes_on_after_its_connection_was_cut(
    through_proxy: tuple[RegistryClient, Repository], proxy: CuttingProxy, after: int
) -> None:
    client, repository = through_proxy
    proxy.cut("sent", after=after)
    sent = await client.upload(repository, blob(DATA))
    assert proxy.cut_connections == 1
    assert len(DATA) <= sent < 3 * len(DATA)
    assert await content(client, repository) == DATA


async def test_a_download_goes_on_where_its_connection_was_cut(
    through_proxy: tuple[RegistryClient, Repository], proxy: CuttingProxy
) -> None:
    client, repository = through_proxy
    await client.upload(repository, blob(DATA))
    proxy.cut("received", after=5 * MIB)
    assert await content(client, repository) == DATA
    assert proxy.cut_connections == 1


async def test_answers_that_are_lost_change_nothing(
    through_proxy: tuple[RegistryClient, Repository], proxy: CuttingProxy
) -> None:
    client, repository = through_proxy
    for _ in range(3):
        proxy.cut("received", after=10)
    base = await push_base(client, repository)
    assert proxy.cut_connections == 3
    assert (await client.manifest(Reference(repository, "base"))).digest == base.digest


async def test_a_registry_that_is_away_is_named(
    plain: RegistryServer, opened: AsyncExitStack
) -> None:
    client = await opened.enter_async_context(RegistryClient(plain.access(), retry_seconds=0.2))
    repository = Repository(plain.address, "shop/a")
    await plain.kill()
    away = f"the registry of {repository} does not respond.*check that it runs"
    with pytest.raises(RegistryUnavailable, match=away):
        await client.manifest(Reference(repository, "latest"))
    with pytest.raises(RegistryUnavailable, match=f"{away}.*after 0 of 7 bytes"):
        await client.upload(repository, blob(b"7 bytes"))


@pytest.fixture(params=["tls", "token"])
async def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RegistryServer]:
    """A registry that asks for a login."""
    server = (
        RegistryServer(tmp_path / "guarded", tls=True, auth="basic")
        if request.param == "tls"
        else RegistryServer(tmp_path / "guarded", auth="token")
    )
    try:
        await server.start()
        yield server
    finally:
        await server.close()


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("wrong", "refused the login of user 'pusher': check the password"),
        (None, "there are no credentials for it: docker login"),
    ],
)
async def test_a_login_that_is_refused_says_what_to_do_and_no_password(
    guarded: RegistryServer, password: str | None, said: str
) -> None:
    repository = Repository(guarded.address, "shop/a")
    async with RegistryClient(guarded.access(password=password)) as client:
        with pytest.raises(RegistryLoginRefused, match=f"{repository}.*{said}") as raised:
            await client.upload(repository, blob(b"data"))
        with pytest.raises(RegistryLoginRefused, match=said):
            await client.manifest(Reference(repository, "latest"))
    assert "wrong" not in raised.value.message


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(tmp_path: Path) -> None:
    server = RegistryServer(tmp_path / "registry", tls=True)
    try:
        await server.start()
        async with RegistryClient(server.access(trusted=False)) as client:
            with pytest.raises(RegistryError, match=r"cannot be trusted.*SHASHIN_REGISTRY_CA_FILE"):
                await client.manifest(Reference(Repository(server.address, "a"), "latest"))
    finally:
        await server.close()


async def test_plain_http_is_spoken_only_to_registries_that_are_listed(
    plain: RegistryServer,
) -> None:
    async with RegistryClient(RegistryAccess(), retry_seconds=0.1) as client:
        with pytest.raises(RegistryError, match="SHASHIN_REGISTRY_PLAIN_HTTP"):
            await client.manifest(Reference(Repository(plain.address, "a"), "latest"))


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[RegistryServer]:
    server = RegistryServer(tmp_path / "tokens", auth="token")
    try:
        await server.start()
        yield server
    finally:
        await server.close()


async def test_what_a_token_does_not_permit_is_denied_by_name(tokens: RegistryServer) -> None:
    assert tokens.tokens is not None
    tokens.tokens.rights = Rights(frozenset({"shop/a:push"}))
    repository = Repository(tokens.address, "shop/a")
    async with RegistryClient(tokens.access(), retry_seconds=0.1) as client:
        with pytest.raises(RegistryDenied, match=f"denies pull,push in {repository}"):
            await client.upload(repository, blob(b"data"))


async def test_a_blob_is_sent_if_its_mount_is_refused(tokens: RegistryServer) -> None:
    assert tokens.tokens is not None
    source, target = (Repository(tokens.address, name) for name in ("shop/a", "shop/b"))
    async with RegistryClient(tokens.access()) as client:
        await client.upload(source, blob(b"data"))
        tokens.tokens.rights = Rights(frozenset({"shop/a:pull"}))
    async with RegistryClient(tokens.access()) as client:
        assert await client.upload(target, blob(b"data"), mount_from=source) == 4
        assert await client.has_blob(target, digest_of(b"data"))


async def test_a_token_asks_for_no_more_than_it_is_needed_for(tokens: RegistryServer) -> None:
    assert tokens.tokens is not None
    repository = Repository(tokens.address, "shop/a")
    async with RegistryClient(tokens.access()) as client:
        await client.tags(repository)
        await client.upload(repository, blob(b"data"))
        await client.upload(repository, blob(b"more"))
    actions = [{s.rpartition(":")[2] for s in scopes} for scopes in tokens.tokens.given]
    assert actions == [{"pull"}, {"pull", "pull,push"}]
    assert {s.split(":")[1] for scopes in tokens.tokens.given for s in scopes} == {"shop/a"}


async def test_an_identity_token_is_exchanged_for_a_token_of_the_registry(
    tokens: RegistryServer,
) -> None:
    repository = Repository(tokens.address, "shop/a")
    for text, is_good in ((IDENTITY_TOKEN, True), ("somebody else", False)):
        config = DockerConfig({tokens.address: Credentials(identity_token=text)}, {})
        access = RegistryAccess(config, plain_http=frozenset({tokens.address}))
        async with RegistryClient(access) as client:
            if is_good:
                assert await client.upload(repository, blob(b"data")) == 4
            else:
                with pytest.raises(RegistryLoginRefused, match="refused the login of the given"):
                    await client.upload(repository, blob(b"other"))


async def test_a_token_of_the_registry_is_sent_as_it_is(tokens: RegistryServer) -> None:
    assert tokens.tokens is not None
    repository = Repository(tokens.address, "shop/a")
    token = tokens.tokens.token([f"repository:{repository.path}:pull,push"])
    tokens.tokens.given.clear()
    config = DockerConfig({tokens.address: Credentials(registry_token=token)}, {})
    access = RegistryAccess(config, plain_http=frozenset({tokens.address}))
    async with RegistryClient(access) as client:
        assert await client.upload(repository, blob(b"data")) == 4
    assert tokens.tokens.given == []


async def test_a_token_that_expired_is_replaced(tokens: RegistryServer) -> None:
    assert tokens.tokens is not None
    tokens.tokens.lifetime_seconds = -3600
    repository = Repository(tokens.address, "shop/a")
    async with RegistryClient(tokens.access(), retry_seconds=0.1) as client:
        with pytest.raises(RegistryLoginRefused):
            await client.upload(repository, blob(b"data"))
        tokens.tokens.lifetime_seconds = 300
        await client.upload(repository, blob(b"data"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 8 MiB."""
    with mounted_disk(tmp_path / "small", kibibytes=8 * 1024) as folder:
        yield folder


def delete_started_uploads(folder: Path) -> None:
    for left in folder.rglob("_uploads/*/data"):
        left.unlink()


async def test_a_registry_with_a_full_disk_says_so_and_goes_on_once_there_is_space(
    small_disk: Path, tmp_path: Path
) -> None:
    server = RegistryServer(tmp_path / "registry")
    server.storage = small_disk / "storage"
    filling = small_disk / "filling"
    try:
        await server.start()
        repository = Repository(server.address, "shop/a")
        filling.write_bytes(bytes(6 * MIB))
        data = blob(DATA[: 4 * MIB])
        async with RegistryClient(server.access(), retry_seconds=0.5) as client:
            with pytest.raises(
                RegistryFull, match=f"{repository} has no space left.*delete images"
            ):
                await client.upload(repository, data)
            filling.unlink()
            await asyncio.to_thread(delete_started_uploads, small_disk)
            await client.upload(repository, data)
            assert await client.has_blob(repository, data.digest)
    finally:
        await server.close()
