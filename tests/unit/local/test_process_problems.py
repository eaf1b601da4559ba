"""What ready processes say is wrong with them."""

from __future__ import annotations

import os

from shashin.local.health import with_problems
from shashin.local.processes import ProcessRow
from shashin.runtime.health import Health
from shashin.runtime.probes import start_probes


async def test_a_ready_process_that_is_degraded_says_what_is_wrong() -> None:
    health = Health()
    health.ready_when_degraded = True
    loop = health.register("reader")
    runner, port = await start_probes(health, "127.0.0.1", 0)
    try:
        row = ProcessRow(
            "indexer", "ready", pid=os.getpid(), addresses={"http": f"127.0.0.1:{port}"}
        )
        (well,) = await with_problems([row])
        assert (well.well, well.problems) == (True, "")
        loop.degraded["vectors.embedded[0]"] = "the partition waits"
        (degraded,) = await with_problems([row])
        assert degraded.well
        assert degraded.problems == "vectors.embedded[0]: the partition waits"
    finally:
        await runner.cleanup()


async def test_processes_that_are_not_ready_or_have_no_probes_are_as_they_were() -> None:
    rows = [ProcessRow("kafka", "ready", pid=1), ProcessRow("router", "starting", "imports")]
    assert await with_problems(rows) == rows
