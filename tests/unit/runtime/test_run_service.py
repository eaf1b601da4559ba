"""A service as a real process: startup, logs and exit."""

from __future__ import annotations

import signal
import socket
from typing import Any

import aiohttp
import pytest

from tests.support.service_process import ServiceProcess
from tests.support.waiting import until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_it_and_it_exits_with_0(number: signal.Signals) -> None:
    async with ServiceProcess(greeting="hello") as service:
        started = await service.line("started")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{started['http_port']}/metrics") as response,
        ):
            assert 'shashin_service_info{service="echo"} 1.0' in await response.text()
        service.send(number)
        assert await service.exit_code() == 0
        assert service.log()[-1]["event"] == "drained"


async def test_every_line_of_its_log_is_a_json_object_that_names_the_service() -> None:
    async with ServiceProcess(greeting='"quoted"\n\u2028 日本') as service:
        await service.line("a library's line\nbreak")
        service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
        log = {line["event"]: line for line in service.log()}
    for line in log.values():
        assert line["service"] == "echo"
        assert line["level"] in {"info", "warning"}
        assert line["timestamp"].endswith("Z")
    assert log["greeting"]["text"] == '"quoted"\n\u2028 日本'
    assert log["a library's line\nbreak"]["size"] == 3
    assert log["drained"]["partition"] == 7, "the context is in every later line"
    assert "reconnects again" not in log, "noise of client libraries is filtered"


async def test_lines_below_the_level_are_not_written() -> None:
    async with ServiceProcess(greeting="hello", log_level="warning") as service:
        await service.line("a library's line\nbreak")
        service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
        assert [line["event"] for line in service.log()] == ["a library's line\nbreak"]


async def test_invalid_settings_exit_with_2_and_one_line_that_names_them() -> None:
    async with ServiceProcess(drain_seconds="soon") as service:
        assert await service.exit_code() == 2
        assert service.errors.startswith("echo: invalid settings: ")
        assert "SHASHIN_DRAIN_SECONDS='soon'" in service.errors
        assert "SHASHIN_GREETING is not set" in service.errors
        assert service.errors.count("\n") == 1, "a person needs no traceback"


async def test_a_port_in_use_exits_with_2_and_one_line_that_names_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        async with ServiceProcess(greeting="hello", http_port=port) as service:
            assert await service.exit_code() == 2
            assert f"echo: cannot listen on 127.0.0.1:{port}" in service.errors
            assert service.errors.count("\n") == 1


async def test_a_known_error_exits_with_1_and_its_name() -> None:
    async with ServiceProcess(greeting="hello", mood="named-error") as service:
        assert await service.exit_code() == 1
        last = service.log()[-1]
    assert last["event"] == "stopped by an error"
    assert (last["reason"], last["error"]) == ("KafkaUnavailable", "kafka is gone")
    assert "exception" not in last


async def test_an_unexpected_error_exits_with_1_and_a_traceback_in_one_line() -> None:
    async with ServiceProcess(greeting="hello", mood="unexpected-error") as service:
        assert await service.exit_code() == 1
        last = service.log()[-1]
    assert last["event"] == "stopped by an unexpected error"
    assert last["exception"].endswith("ZeroDivisionError: nobody expected this")


async def test_work_that_does_not_drain_is_cancelled_and_it_exits_with_0() -> None:
    async with ServiceProcess(greeting="hello", mood="stuck", drain_seconds="0.1") as service:
        await service.line("greeting")
        service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
        assert [line["event"] for line in service.log()][-2:] == [
            "cancelled work that did not drain",
            "drained",
        ]


async def test_a_signal_turns_debug_lines_on_and_another_one_off_again() -> None:
    async with ServiceProcess(greeting="hello", mood="talkative") as service:
        started = await service.line("started")
        service.send(signal.SIGUSR1)
        assert (await service.line("working"))["level"] == "debug"
        assert await debug_logs(started["http_port"]) == 1
        # It says what to do, not to change it: twice is once.
        service.send(signal.SIGUSR1)
        await until(lambda: len(changes(service)) == 2, "the second signal is taken")
        service.send(signal.SIGUSR2)
        await until(lambda: len(changes(service)) == 3, "the third one as well")
        assert await debug_logs(started["http_port"]) == 0
        service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
        log = service.log()
    assert [line["log_level"] for line in changes(service)] == ["debug", "debug", "info"]
    last = max(number for number, line in enumerate(log) if line["event"] == "log level changed")
    assert "working" in {line["event"] for line in log[:last]}
    assert [line["event"] for line in log[last + 1 :]] == ["drained"]
    assert "S3CRET" not in service.errors, "libraries log nothing below info"


async def test_a_level_of_debug_in_the_settings_is_not_for_libraries() -> None:
    async with ServiceProcess(greeting="hello", mood="talkative", log_level="debug") as service:
        started = await service.line("started")
        await service.line("working")
        assert await debug_logs(started["http_port"]) == 1
        service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
    assert "S3CRET" not in service.errors


def changes(service: ServiceProcess) -> list[dict[str, Any]]:
    return [line for line in service.log() if line["event"] == "log level changed"]


async def debug_logs(http_port: int) -> float:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{http_port}/metrics") as response,
    ):
        lines = (await response.text()).splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith("shashin_debug_logs "))
    return float(value)
