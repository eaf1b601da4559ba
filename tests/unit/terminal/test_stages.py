"""Progress as lines, if the output is not a terminal."""

from __future__ import annotations

import pytest

from shashin.terminal.console import Stage, Stages, stages_line

RENDERED = Stage(9, 9)
WAITING = Stage()


def test_a_line_shows_what_changed() -> None:
    before = {"rendered": RENDERED, "published": Stage(1200, 2000), "searchable": Stage(3)}
    assert stages_line(before, {}) == "rendered 9/9   published 1,200/2,000   searchable 3"
    after = {**before, "published": Stage(1300, 2000)}
    assert stages_line(after, before) == "published 1,300/2,000"


def test_a_line_shows_unfinished_stages_when_nothing_changed() -> None:
    standing = {"rendered": RENDERED, "published": Stage(1300, 2000)}
    assert stages_line(standing, standing) == "published 1,300/2,000"
    assert stages_line({"rendered": RENDERED}, {"rendered": RENDERED}) == "rendered 9/9"
    assert not stages_line(standing, standing, only_changes=True)


def test_a_stage_that_is_not_counted_is_its_name_alone_until_it_is_done() -> None:
    assert stages_line({"starting kafka": WAITING}, {}) == "starting kafka"
    done = {"starting kafka": Stage(finished=True)}
    assert stages_line(done, {"starting kafka": WAITING}) == "starting kafka: done"
    assert stages_line(done, {}) == "starting kafka: done", "it finished before the first line"


def test_a_finished_stage_is_not_repeated_while_another_continues() -> None:
    stages = {"waiting for another system": Stage(finished=True), "services ready": Stage(2, 6)}
    assert stages_line(stages, stages) == "services ready 2/6"


def test_a_note_shows_what_a_stage_waits_for() -> None:
    stages = {"services ready": Stage(5, 6, "waiting for embedder")}
    assert stages_line(stages, stages) == "services ready 5/6 (waiting for embedder)"


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.partition(" s  ")[2].rstrip("\n")


def test_unprinted_changes_are_printed_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Stages() as stages:
        stages.set("waiting for another system")
        stages.finish("waiting for another system")
        stages.set("services ready", 5, 6, note="waiting for embedder")
        stages.set("services ready", 6)
    assert printed(capsys) == "waiting for another system: done   services ready 6/6"


def test_a_stage_that_never_began_is_not_shown_when_it_is_finished(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Stages() as stages:
        stages.finish("waiting for another system")
    assert printed(capsys) == ""
