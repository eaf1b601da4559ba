"""The supervisor's own log has a bounded size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
MAX_BYTES = 8 * 1024 * 1024

WRITES = """
import logging, sys
from pathlib import Path
from shashin.local.supervisor import logging_to
from shashin.runtime.logging import get_logger
with logging_to(Path(sys.argv[1])):
    for number in range(400):
        get_logger("supervisor").warning("restarted", process="router", odd="x" * 20_000)
        logging.getLogger("asyncio").error("y" * 20_000)
        print("z" * 20_000, file=sys.stderr)
    get_logger("supervisor").info("stopped")
"""


def test_lines_of_the_supervisor_and_of_its_libraries_are_in_two_files_at_most(
    tmp_path: Path,
) -> None:
    log = tmp_path / "logs" / "supervisor.log"
    written = subprocess.run(
        [sys.executable, "-c", WRITES, str(log)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.stderr == ""
    files = {file.name: file.stat().st_size for file in log.parent.iterdir()}
    assert files.keys() == {"supervisor.log", "supervisor.log.1"}
    assert all(size <= MAX_BYTES for size in files.values())
    last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    assert (last["event"], last["service"], last["level"]) == ("stopped", "supervisor", "info")
