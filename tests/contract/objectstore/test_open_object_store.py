"""URIs open a store or are rejected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shashin.errors import UserError
from shashin.objectstore.file import FileObjectStore, open_folder
from shashin.objectstore.open import SCHEMES, Scheme, known_forms, open_object_store

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("uri", "opens"),
    [
        ("file:///srv/repository", "FileObjectStore(/srv/repository)"),
        ("file:///srv/with%20space/%C3%BC", "FileObjectStore(/srv/with space/ü)"),
        ("gs://bucket", "GcsObjectStore(gs://bucket)"),
        ("gs://bucket/", "GcsObjectStore(gs://bucket)"),
        ("gs://bucket/a/folder/", "GcsObjectStore(gs://bucket/a/folder)"),
        ("gs://bucket.example.com/a%20folder", "GcsObjectStore(gs://bucket.example.com/a folder)"),
        ("s3://bucket", "S3ObjectStore(s3://bucket)"),
        ("s3://bucket/a%20folder/", "S3ObjectStore(s3://bucket/a folder)"),
    ],
)
def test_a_uri_opens_the_store_that_it_names(uri: str, opens: str) -> None:
    # Opening does no I/O: it needs neither credentials nor a bucket.
    assert repr(open_object_store(uri)) == opens


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "repository",
        "/srv/repository",
        "file:repository",
        "file://repository",
        "file://host/repository",
        "gs://",
        "gs:///folder",
        "gs:bucket",
        "s3://",
        "s3:///folder",
        "https://storage.example.com/bucket",
    ],
)
def test_any_other_uri_is_rejected_with_the_valid_forms(uri: str) -> None:
    with pytest.raises(UserError, match=known_forms()) as no:
        open_object_store(uri)
    assert repr(uri) in no.value.message


async def test_the_folder_is_created_by_the_first_write(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "when needed"
    store = open_object_store(folder.as_uri())
    assert await store.list_objects("") == []
    assert not folder.exists()
    await store.write("a", b"data")
    assert (folder / "a").read_bytes() == b"data"


def test_a_scheme_is_one_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        SCHEMES, "nfs", Scheme("nfs:///FOLDER", f"{open_folder.__module__}:open_folder")
    )
    assert isinstance(open_object_store("nfs:///srv"), FileObjectStore)
    assert known_forms() == (
        "file:///ABSOLUTE/FOLDER, gs://BUCKET/FOLDER, s3://BUCKET/FOLDER or nfs:///FOLDER"
    )
    with pytest.raises(UserError, match=known_forms()):
        open_object_store("https://storage.example.com/bucket")


@pytest.mark.parametrize(
    ("uri", "others"),
    [
        ("file:///srv", ["google.cloud.storage", "aioboto3", "botocore"]),
        ("gs://bucket", ["shashin.objectstore.file", "aioboto3", "botocore"]),
        ("s3://bucket", ["shashin.objectstore.file", "google.cloud.storage"]),
    ],
)
def test_a_process_needs_the_libraries_of_its_own_store_alone(uri: str, others: list[str]) -> None:
    program = (
        "import sys; from shashin.objectstore.open import open_object_store; "
        "open_object_store(sys.argv[1]); print(sorted(set(sys.argv[2:]) & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", program, uri, *others]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


@pytest.mark.parametrize(
    ("uri", "module"),
    [("gs://bucket", "shashin.objectstore.gcs"), ("s3://bucket", "shashin.objectstore.s3")],
)
def test_a_library_that_is_not_installed_is_named(
    uri: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"'{uri}' needs the package .* not installed here"):
        open_object_store(uri)
