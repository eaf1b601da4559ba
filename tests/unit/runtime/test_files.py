"""Files of others: only regular ones are opened, and their names are bytes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.runtime.files import NotARegularFile, open_regular, path_of_uri


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bytes")
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"bytes"


def test_a_pipe_without_a_writer_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(NotARegularFile, match=r"Not a regular file: .*pipe\.jpg"):
        open_regular(tmp_path / "pipe.jpg")


def test_a_device_a_socket_and_a_folder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotARegularFile):
        open_regular(Path("/dev/zero"))
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(NotARegularFile):
            open_regular(Path("socket"))
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


@given(st.binary(min_size=1, max_size=20).filter(lambda name: not {0, 47} & set(name)))
def test_a_uri_leads_back_to_the_path_whatever_bytes_it_has(name: bytes) -> None:
    path = Path(os.fsdecode(b"/photos/x" + name))
    assert path_of_uri(path.as_uri()) == path
