"""Files that change, in every way that they are replaced."""

from __future__ import annotations

import os
from pathlib import Path

from shashin.runtime.watched_files import WatchedFiles


def test_a_change_is_seen_once(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    watched = WatchedFiles([file])
    assert watched.changed()
    assert not watched.changed()
    os.utime(file, ns=(1, 1))
    assert watched.changed()
    assert not watched.changed()


def test_a_file_that_is_replaced_or_removed_or_comes_has_changed(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    watched = WatchedFiles([file, other])
    assert watched.changed()
    file.write_text("1")
    assert watched.changed()
    replacement = tmp_path / "new"
    replacement.write_text("1")
    replacement.replace(file)
    assert watched.changed()
    file.unlink()
    assert watched.changed()
    assert not watched.changed()


def test_a_secret_of_kubernetes_changes_by_a_link_of_its_folder(tmp_path: Path) -> None:
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tls.crt").write_text("same length")
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    watched = WatchedFiles([tmp_path / "tls.crt"])
    assert watched.changed()
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert watched.changed()
    assert not watched.changed()
