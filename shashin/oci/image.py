"""Images: reading one as a base, and appending layers to it. Pure, the same bytes for the same input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shashin.errors import UnusableImage
from shashin.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    read_descriptor,
)
from shashin.oci.references import digest_of, is_digest

MAX_LAYERS = 100
"""Of an image, those of its base included. Docker's overlay driver fails beyond 128, and an engine
needs some for itself; seen to fail at 140."""

MAX_CONFIG_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Platform:
    """What an image runs on."""

    os: str = "linux"
    architecture: str = "amd64"

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"


@dataclass(frozen=True)
class Image:
    """One image, as it was read."""

    digest: str
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    document: Mapping[str, Any]
    """Its configuration."""
    annotations: Mapping[str, str]
    """Of its manifest; those of an image in Docker's format are its labels."""

    @property
    def created_by(self) -> Sequence[tuple[str, str]]:
        """What each layer was created by, with the comment; empty texts if it is not stated."""
        entries = [
            (str(entry.get("created_by") or ""), str(entry.get("comment") or ""))
            for entry in self.document.get("history") or []
            if isinstance(entry, dict) and not entry.get("empty_layer")
        ]
        return entries if len(entries) == len(self.layers) else [("", "")] * len(self.layers)


@dataclass(frozen=True)
class AppendedLayer:
    """A layer to append, which is uploaded on its own."""

    digest: str
    """Also its diff id, since it is not compressed."""
    size: int
    """Bytes."""
    created_by: str
    comment: str = ""


@dataclass(frozen=True)
class NewImage:
    """A manifest and a configuration to push."""

    manifest: bytes
    media_type: str
    config: bytes

    @property
    def digest(self) -> str:
        """The image's digest."""
        return digest_of(self.manifest)


def is_index(media_type: str, data: bytes) -> bool:
    """Return whether it is an index over images for several platforms."""
    return _media_type(_document(data, "the manifest"), media_type) in INDEXES


def choose_platform(data: bytes, platform: Platform, name: str) -> str:
    """Return the digest of an index's image for a platform.

    Raises:
        UnusableImage: when it has none, or is no index. ``name`` is in the message.
    """
    document = _document(data, f"the index of {name}")
    listed = document.get("manifests")
    found = []
    for entry in listed if isinstance(listed, list) else []:
        its = entry.get("platform") if isinstance(entry, dict) else None
        if not isinstance(its, dict):
            continue
        own = Platform(str(its.get("os")), str(its.get("architecture")))
        if own == platform:
            return read_descriptor(entry, f"an image of {name}").digest
        found.append(str(own))
    raise UnusableImage(
        f"{name} has no image for {platform}, only for {', '.join(sorted(set(found))) or 'none'}: "
        "build the base image for that platform as well"
    )


def read_manifest(data: bytes, media_type: str, name: str) -> tuple[str, Descriptor]:
    """Return a manifest's media type and the descriptor of its configuration.

    Raises:
        UnusableImage: when it is not the manifest of an image. ``name`` is in the message.
    """
    document = _document(data, f"the manifest of {name}")
    found = _media_type(document, media_type)
    if found not in MANIFESTS:
        raise UnusableImage(
            f"{name} has a manifest of type {found[:200]!r}: expected an OCI image or one of Docker's "
            "schema 2; push the base image again with a current tool"
        )
    return found, read_descriptor(document.get("config"), f"the configuration of {name}")


def read_image(
    data: bytes, media_type: str, config: bytes, name: str, platform: Platform | None = None
) -> Image:
    """Read an image from its manifest and configuration.

    Raises:
        UnusableImage: when they contradict each other, or it is for another platform.
    """
    found, described = read_manifest(data, media_type, name)
    manifest, document = _document(data, name), _document(config, f"the configuration of {name}")
    listed = manifest.get("layers")
    layers = tuple(
        read_descriptor(layer, f"a layer of {name}")
        for layer in (listed if isinstance(listed, list) else [])
    )
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(
        isinstance(d, str) and is_digest(d) for d in diff_ids
    ):
        raise UnusableImage(f"the configuration of {name} has no diff_ids: it is none of an image")
    if len(diff_ids) != len(layers):
        raise UnusableImage(
            f"{name} has {len(layers)} layers and {len(diff_ids)} diff_ids: expected as many; push the "
            "base image again"
        )
    own = Platform(str(document.get("os")), str(document.get("architecture")))
    if platform is not None and own != platform:
        raise UnusableImage(f"{name} is for {own}: expected an image for {platform}")
    annotations = manifest.get("annotations") if found == OCI_MANIFEST else _labels(document)
    texts = annotations if isinstance(annotations, dict) else {}
    return Image(
        digest_of(data),
        found,
        described,
        layers,
        tuple(diff_ids),
        document,
        {str(key): str(value) for key, value in texts.items()},
    )


def append_layers(
    base: Image,
    layers: Sequence[AppendedLayer],
    *,
    annotations: Mapping[str, str],
    created: float,
) -> NewImage:
    """Return the image that has the base's layers and then these, in its format.

    ``created`` (Unix seconds) is written as the time of the image and of each new layer: take it from
    the content, so that the same content gives the same image. The configuration of the base is kept,
    with everything that it says and that is not known here.

    Raises:
        UnusableImage: when there are more than 100 layers, or the manifest exceeds 4 MiB.
    """
    total = len(base.layers) + len(layers)
    if total > MAX_LAYERS:
        raise UnusableImage(
            f"{len(layers)} layers cannot be appended to an image with {len(base.layers)}: the limit is "
            f"{MAX_LAYERS} in all; split the shards over more images"
        )
    at = datetime.fromtimestamp(int(created), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    is_oci = base.media_type == OCI_MANIFEST
    config = _config(base, layers, annotations if not is_oci else {}, at)
    of_layers = OCI_LAYER if is_oci else DOCKER_LAYER
    of_config = OCI_CONFIG if is_oci else DOCKER_CONFIG
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST if is_oci else DOCKER_MANIFEST,
        "config": Descriptor(of_config, digest_of(config), len(config)).document(),
        "layers": [
            *(layer.document() for layer in base.layers),
            *(Descriptor(of_layers, layer.digest, layer.size).document() for layer in layers),
        ],
    }
    if is_oci:
        manifest["annotations"] = {**base.annotations, **annotations}
    data = _json(manifest)
    if len(data) > MAX_MANIFEST_BYTES:
        raise UnusableImage(
            f"the manifest would have {len(data)} bytes, and registries take {MAX_MANIFEST_BYTES}: "
            "shorten the annotations of the base image"
        )
    return NewImage(data, manifest["mediaType"], config)


def _config(
    base: Image, layers: Sequence[AppendedLayer], labels: Mapping[str, str], at: str
) -> bytes:
    document = dict(base.document)
    document["created"] = at
    document["rootfs"] = {
        "type": "layers",
        "diff_ids": [*base.diff_ids, *(layer.digest for layer in layers)],
    }
    document["history"] = [
        *_history(base),
        *(
            {
                "created": at,
                "created_by": layer.created_by,
                **({"comment": layer.comment} if layer.comment else {}),
            }
            for layer in layers
        ),
    ]
    if labels:
        runs = document.get("config")
        settings = dict(runs) if isinstance(runs, dict) else {}
        document["config"] = {**settings, "Labels": {**_labels(document), **labels}}
    return _json(document)


def _history(base: Image) -> list[Any]:
    """Return the base's history, in which every layer has to have an entry."""
    listed = base.document.get("history")
    history = list(listed) if isinstance(listed, list) else []
    filled = [
        entry for entry in history if not (isinstance(entry, dict) and entry.get("empty_layer"))
    ]
    missing = len(base.layers) - len(filled)
    if missing < 0:
        return [{"created_by": "a layer of the base image"} for _ in base.layers]
    return history + [{"created_by": "a layer of the base image"}] * missing


def _labels(document: Mapping[str, Any]) -> dict[str, str]:
    runs = document.get("config")
    labels = runs.get("Labels") if isinstance(runs, dict) else None
    return dict(labels) if isinstance(labels, dict) else {}


def _media_type(document: Mapping[str, Any], header: str) -> str:
    """Return the type that a document states of itself, else that of the answer's header."""
    stated = document.get("mediaType")
    return stated if isinstance(stated, str) and stated else header


def _document(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnusableImage(f"{what} is not JSON: it is none of an image") from error
    if not isinstance(document, dict):
        raise UnusableImage(f"{what} is not a JSON object: it is none of an image")
    return document


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
