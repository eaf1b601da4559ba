"""Work folders of real processes: a folder that is not theirs stays as it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shashin.runtime.work_folder import WorkFolder
from tests.support.running_service import RunningService


@pytest.mark.parametrize("name", ["indexer", "index_server"])
@pytest.mark.parametrize("owner", ["a stranger", "another process"])
async def test_a_service_refuses_a_work_folder_that_is_not_its_own_with_code_2(
    name: str, owner: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    owned = WorkFolder(work) if owner == "another process" else None
    (work / "thesis.txt").write_text("years of work")
    service = RunningService(
        name,
        "127.0.0.1:1",
        {
            "repository": (tmp_path / "repository").as_uri(),
            "discovery": (tmp_path / "discovery.json").as_uri(),
            "work_folder": work,
        },
        log=tmp_path / "logs",
    )
    await service.start()
    try:
        assert await asyncio.to_thread(service.process.wait, 60) == 2
    finally:
        await service.close()
    last = service.log().splitlines()[-1]
    assert last.startswith(f"{name.replace('_', '-')}: SHASHIN_WORK_FOLDER='{work}': ")
    assert (work / "thesis.txt").read_text() == "years of work"
    if owned is not None:
        owned.close()
