"""User errors of ``shashin dlq``: one line, the right exit code, and no request to Kafka."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from shashin.cli.app import app


def shashin(*args: str, state: Path) -> Result:
    return CliRunner().invoke(app, ["dlq", *args], env={"SHASHIN_STATE": str(state)})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["replay"], "which dead letters to replay?"),
        (["replay", "--limit", "3"], "which dead letters to replay?"),
        (["drop"], "which dead letters to drop?"),
        (["show"], "which dead letters to show?"),
        (["show", "12"], "'12' is not the id of a dead letter"),
        (["replay", "x.dlq:1"], "'x.dlq:1' is not the id of a dead letter"),
        (["replay", "listings.events.dlq:1", "--reason", "X"], "ids or filters, not both"),
        (["drop", "listings.events.dlq:1", "--all-open"], "ids or filters, not both"),
        (["drop", "--all-open", "--listing", "x"], "omit either it or the filters"),
        (["ls", "--topic", "listings.hidden"], "has no dead-letter topic"),
        (["ls", "--since", "soon"], "'soon' is not a time"),
        (["ls", "--since", "1h", "--until", "2h"], "--since 1h is not before --until 2h"),
    ],
)
def test_a_user_error_is_one_line_and_exit_code_2(
    args: list[str], message: str, tmp_path: Path
) -> None:
    result = shashin(*args, state=tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("limit", ["0", "x"])
def test_a_limit_is_a_number_from_1(limit: str, tmp_path: Path) -> None:
    assert shashin("ls", "--limit", limit, state=tmp_path).exit_code == 2


@pytest.mark.parametrize("command", ["ls", "replay", "drop"])
def test_a_kafka_that_does_not_answer_is_one_line_and_exit_code_1(
    command: str, tmp_path: Path
) -> None:
    which = [] if command == "ls" else ["--all-open"]
    result = shashin(command, *which, "--kafka", "127.0.0.1:1", state=tmp_path)
    assert result.exit_code == 1
    assert "kafka at 127.0.0.1:1 does not respond" in result.stderr
