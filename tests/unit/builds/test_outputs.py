"""A step's output is recognised again, and so is every change of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.builds.outputs import difference, measure_outputs
from shashin.errors import StepFailed

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8)
FILES = st.dictionaries(
    st.tuples(NAMES.map("f-".__add__)) | st.tuples(NAMES.map("d-".__add__), NAMES.map("f-".__add__)),
    st.binary(max_size=20),
    max_size=5,
)  # fmt: skip


def written(folder: Path, files: dict[tuple[str, ...], bytes]) -> Path:
    for parts, content in files.items():
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@given(FILES, st.data())
def test_every_change_is_noticed_and_named(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, ...], bytes], data: st.DataObject
) -> None:  # fmt: skip
    folder = written(tmp_path_factory.mktemp("out"), files)
    outputs = measure_outputs(folder)
    assert [file.path for file in outputs] == sorted("/".join(parts) for parts in files)
    assert difference(folder, outputs) == ""
    (folder / "added").touch()
    assert difference(folder, outputs) == "added was added"
    (folder / "added").unlink()
    if not files:
        return
    chosen = data.draw(st.sampled_from(sorted(files)))
    path, name = folder.joinpath(*chosen), "/".join(chosen)
    path.write_bytes(files[chosen] + b"x")
    size = len(files[chosen])
    assert difference(folder, outputs) == f"{name} has {size + 1} bytes instead of {size}"
    if files[chosen]:
        path.write_bytes(bytes(255 - byte for byte in files[chosen]))
        assert difference(folder, outputs) == f"{name} was changed"
    path.unlink()
    assert difference(folder, outputs) == f"{name} is missing"


def test_what_cannot_be_verified_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(StepFailed, match="link is neither a file nor a folder"):
        measure_outputs(tmp_path)
    assert "link is neither a file nor a folder" in difference(tmp_path, [])
    with pytest.raises(StepFailed, match="is a link: expected the folder"):
        measure_outputs(tmp_path / "link")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"odd-\xff")).touch()
    with pytest.raises(StepFailed, match=r"odd-\\udcff': the name of an output has to be UTF-8"):
        measure_outputs(tmp_path)


def test_a_folder_that_is_gone_differs(tmp_path: Path) -> None:
    assert difference(tmp_path / "gone", []) == (
        f"{tmp_path / 'gone'} cannot be read: no such file or directory"
    )
