"""Work folders: owned by one process, so that nothing of anyone else is deleted."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from shashin.errors import SettingsError
from shashin.runtime.work_folder import MARKER, WorkFolder, mark_work_folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "work"


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("exists", [False, True])
def test_a_missing_or_an_empty_folder_becomes_a_work_folder(path: Path, exists: bool) -> None:
    if exists:
        path.mkdir(parents=True)
    with closing(WorkFolder(path)):
        assert names(path) == {MARKER}


def test_clearing_deletes_all_but_the_marker_and_follows_no_link(
    path: Path, tmp_path: Path
) -> None:
    with closing(WorkFolder(path)):
        (path / "shard").mkdir()
        (path / "shard" / "rows.arrow").touch()
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    (path / "folder-link").symlink_to(home)
    (path / "file-link").symlink_to(home / "thesis.txt")
    with closing(WorkFolder(path)) as work:
        work.clear()
        assert names(path) == {MARKER}
    assert (home / "thesis.txt").read_text() == "years of work"


def test_a_folder_of_someone_else_is_refused_by_the_name_of_the_variable_and_stays(
    path: Path,
) -> None:
    path.mkdir(parents=True)
    (path / "thesis.txt").write_text("years of work")
    with pytest.raises(
        SettingsError, match=f"SHASHIN_WORK_FOLDER='{path}': the folder is not empty"
    ):
        WorkFolder(path)
    assert names(path) == {"thesis.txt"}
    mark_work_folder(path)
    with closing(WorkFolder(path)) as work:
        work.clear()
    assert names(path) == {MARKER}


def test_a_folder_that_another_process_uses_is_refused_until_that_ends(path: Path) -> None:
    with closing(WorkFolder(path)):
        with pytest.raises(SettingsError, match=r"SHASHIN_WORK_FOLDER=.*another process uses"):
            WorkFolder(path)
        assert names(path) == {MARKER}
    WorkFolder(path).close()


def test_a_path_that_can_be_no_folder_is_refused_by_the_name_of_the_variable(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    for no_folder in (path, path / "below"):
        with pytest.raises(SettingsError, match=f"SHASHIN_WORK_FOLDER='{no_folder}': "):
            WorkFolder(no_folder)


@pytest.mark.parametrize("deleted", ["folder", "marker"])
def test_a_folder_that_was_deleted_meanwhile_is_owned_again_before_it_is_written(
    path: Path, deleted: str
) -> None:
    with closing(WorkFolder(path)) as work:
        work.keep()
        if deleted == "folder":
            shutil.rmtree(path)
        else:
            (path / MARKER).unlink()
        work.keep()
        (path / "shard").touch()
        with pytest.raises(SettingsError, match="another process uses"):
            WorkFolder(path)
    WorkFolder(path).close()  # it is marked, so the next start may use it


def test_a_folder_that_another_process_has_taken_meanwhile_is_not_written(path: Path) -> None:
    with closing(WorkFolder(path)) as work:
        shutil.rmtree(path)
        with closing(WorkFolder(path)), pytest.raises(OSError, match="another process uses"):
            work.keep()
