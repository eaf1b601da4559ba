"""Small images in registries, to append layers to, and blobs in memory."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import Any

from shashin.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    SmallBlob,
)
from shashin.oci.references import Reference, Repository, digest_of
from shashin.oci.registry import RegistryClient


def blob(data: bytes) -> SmallBlob:
    return SmallBlob(data, digest_of(data))


def base_layer(name: str = "app/index-server", content: bytes = b"#!/bin/sh\n") -> bytes:
    """Return the bytes of a tar with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o755
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def config_document(diff_ids: list[str], **fields: Any) -> dict[str, Any]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": "10001:10001", "Labels": {"vendor": "tests"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [
            {"created_by": "COPY app"},
            {"created_by": "USER 10001", "empty_layer": True},
        ],
        "variant.of.somebody": {"kept": True},
        **fields,
    }


async def push_base(
    client: RegistryClient,
    repository: Repository,
    *,
    tag: str = "base",
    docker: bool = False,
    architecture: str = "amd64",
) -> Reference:
    """Push an image of one gzipped layer, in OCI's or in Docker's format."""
    tar = base_layer()
    layer = blob(gzip.compress(tar, mtime=0))
    config = blob(json.dumps(config_document([digest_of(tar)], architecture=architecture)).encode())
    await client.upload(repository, layer)
    await client.upload(repository, config)
    layers = (
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
        if docker
        else "application/vnd.oci.image.layer.v1.tar+gzip"
    )
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {
            "mediaType": DOCKER_CONFIG if docker else OCI_CONFIG,
            "digest": config.digest,
            "size": config.size,
        },
        "layers": [{"mediaType": layers, "digest": layer.digest, "size": layer.size}],
    }
    digest = await client.put_manifest(
        repository, json.dumps(manifest).encode(), media_type, tag=tag
    )
    return Reference(repository, tag, digest)


async def push_index(
    client: RegistryClient,
    repository: Repository,
    images: dict[str, Reference],
    *,
    tag: str = "multi",
    docker: bool = False,
) -> Reference:
    """Push an index over images by architecture."""
    entries = []
    for architecture, image in images.items():
        fetched = await client.manifest(image)
        entries.append(
            {
                "mediaType": fetched.media_type,
                "digest": fetched.digest,
                "size": len(fetched.data),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    media_type = DOCKER_LIST if docker else OCI_INDEX
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    digest = await client.put_manifest(
        repository, json.dumps(document).encode(), media_type, tag=tag
    )
    return Reference(repository, tag, digest)
