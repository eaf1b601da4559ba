from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from shashin.errors import CorruptBlob, ImageNotFound
from shashin.oci.descriptor import OCI_LAYER, OCI_MANIFEST, Descriptor
from shashin.oci.references import Reference, Repository, digest_of
from shashin.oci.registry import RegistryClient
from tests.support.made_images import blob, push_base
from tests.support.oci_registry import RegistryServer, needs_registry

pytestmark = needs_registry


async def read(client: RegistryClient, repository: Repository, descriptor: Descriptor) -> bytes:
    async with aclosing(client.blob(repository, descriptor)) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("size", [0, 1, 2, 1000, 5 * 1024 * 1024 + 7])
async def test_a_blob_comes_back_as_it_was_sent(
    client: RegistryClient, repository: Repository, size: int
) -> None:
    data = os.urandom(size)
    sent = await client.upload(repository, blob(data))
    assert sent == size
    assert await read(client, repository, Descriptor(OCI_LAYER, digest_of(data), size)) == data


async def test_a_blob_that_is_there_is_not_sent_again(
    client: RegistryClient, repository: Repository
) -> None:
    data = blob(os.urandom(1000))
    await client.upload(repository, data)
    assert await client.has_blob(repository, data.digest)
    assert await client.upload(repository, data) == 0


async def test_a_blob_of_another_repository_is_mounted(
    client: RegistryClient, repository: Repository
) -> None:
    data = blob(os.urandom(1000))
    await client.upload(repository, data)
    other = Repository(repository.registry, f"{repository.path}-other")
    assert not await client.has_blob(other, data.digest)
    assert await client.upload(other, data, mount_from=repository) == 0
    assert await client.has_blob(other, data.digest)


async def test_a_blob_that_the_other_repository_lacks_is_sent(
    client: RegistryClient, repository: Repository
) -> None:
    data = blob(os.urandom(1000))
    other = Repository(repository.registry, f"{repository.path}-other")
    assert await client.upload(other, data, mount_from=repository) == 1000


@dataclass(frozen=True)
class _Changing:
    """A blob whose bytes are no longer those of its digest."""

    digest: str
    size: int
    data: bytes

    async def chunks(self) -> AsyncGenerator[bytes]:
        yield self.data


@pytest.mark.parametrize("actual", [b"other bytes", b"short", b"far more bytes than stated"])
async def test_bytes_with_another_digest_are_not_stored(
    client: RegistryClient, repository: Repository, actual: bytes
) -> None:
    wrong = _Changing(digest_of(b"these bytes"), 11, actual)
    with pytest.raises(CorruptBlob, match="its source changed meanwhile"):
        await client.upload(repository, wrong)
    assert not await client.has_blob(repository, wrong.digest)


async def test_a_blob_that_was_damaged_in_the_registry_is_refused(
    client: RegistryClient, repository: Repository, registry: RegistryServer
) -> None:
    data = blob(os.urandom(1000))
    await client.upload(repository, data)
    stored = registry.blob_path(data.digest)
    damaged = bytearray(stored.read_bytes())
    damaged[500] ^= 1
    stored.write_bytes(damaged)
    with pytest.raises(CorruptBlob, match=f"{repository}.*push the image again"):
        await read(client, repository, Descriptor(OCI_LAYER, data.digest, 1000))


async def test_a_manifest_is_found_by_tag_and_by_digest(
    client: RegistryClient, repository: Repository
) -> None:
    base = await push_base(client, repository, tag="v1")
    by_tag = await client.manifest(Reference(repository, "v1"))
    by_digest = await client.manifest(Reference(repository, digest=base.digest))
    assert by_tag == by_digest
    assert by_tag.media_type == OCI_MANIFEST
    assert by_tag.digest == base.digest
    assert await client.tags(repository) == ["v1"]


async def test_a_deleted_manifest_is_gone_with_its_tags(
    client: RegistryClient, repository: Repository
) -> None:
    base = await push_base(client, repository)
    assert base.digest is not None
    assert await client.delete_manifest(repository, base.digest)
    assert not await client.delete_manifest(repository, base.digest)
    with pytest.raises(ImageNotFound, match=f"{repository}: not found"):
        await client.manifest(Reference(repository, digest=base.digest))
    assert await client.tags(repository) == []


async def test_an_unknown_image_is_named(client: RegistryClient, repository: Repository) -> None:
    with pytest.raises(ImageNotFound, match=f"{repository}: not found.*check the name"):
        await client.manifest(Reference(repository, "missing"))
    assert await client.tags(repository) == []


async def test_all_tags_of_a_repository_are_listed_page_by_page(
    client: RegistryClient, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shashin.oci.registry._TAGS_PER_PAGE", 2)
    for tag in ("c", "a", "e", "b", "d"):
        await push_base(client, repository, tag=tag)
    assert await client.tags(repository) == ["a", "b", "c", "d", "e"]


async def test_a_manifest_without_its_blobs_is_refused(
    client: RegistryClient, repository: Repository
) -> None:
    missing = hashlib.sha256(b"missing").hexdigest()
    described = f'{{"mediaType":"{OCI_LAYER}","digest":"sha256:{missing}","size":7}}'
    data = (
        f'{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{described},'
        f'"layers":[{described}]}}'
    ).encode()
    with pytest.raises(Exception, match="BLOB_UNKNOWN"):
        await client.put_manifest(repository, data, OCI_MANIFEST, tag="broken")
