"""Checks whether this machine can run docker-compose.yml, and starts it; needs Python 3.9 and nothing else.

``python3 compose/stack.py check`` starts nothing; ``up`` checks, builds, starts and waits. All problems are
named at once, each with what to do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docker-compose.yml"
_PORT = re.compile(r"127\.0\.0\.1:\$\{(SHASHIN_COMPOSE_\w+_PORT):-(\d+)\}:")
_OPTIONAL = {"SHASHIN_COMPOSE_PROMETHEUS_PORT", "SHASHIN_COMPOSE_GRAFANA_PORT"}
"""Ports of the profile observability."""
NEEDED_MEMORY = 4 * 1024**3
"""Bytes that the default profile may take at once, with room for the page cache."""
NEEDED_DISK = 15 * 1024**3
"""Bytes of disk to build all images; most are PyTorch's, which are there twice for a moment."""
NEEDED_DISK_BUILT = 2 * 1024**3
_SAY_SECONDS, _SAY_SECONDS_IN_LOGS = 2.0, 10.0
_OBSERVABILITY = "--observability"
_SHOWN_LINES, _SHOWN_CHARACTERS = 60, 100
_STEP = re.compile(r"Step \d+/\d+|#\d+ \[|Building |Creating |Recreating ")
"""How Docker's builders begin a line that says where they are."""
_READY_SECONDS = 300.0


def ports(compose_file: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the ports that the file binds, by the variable that changes each."""
    return {name: environment.get(name) or port for name, port in _PORT.findall(compose_file)}


def port_problems(wanted: Mapping[str, str], own: Iterable[int] = ()) -> list[str]:
    """Return what is wrong with ports; those in ``own`` are this stack's already."""
    problems = []
    for variable, text in sorted(wanted.items()):
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
            problems.append(f"{variable}={text!r} is no port: give a number from 1 to 65535")
            continue
        same = sorted(name for name, other in wanted.items() if other == text and name != variable)
        if same:
            problems.append(f"{variable} and {same[0]} are both {text}: change one of them")
        elif int(text) not in set(own) and not _is_free(int(text)):
            problems.append(
                f"port {text} on 127.0.0.1 is in use: stop what has it, or set {variable} to another"
            )
    return problems


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Docker does it: connections that have just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def memory_problems(total: int, available: Optional[int], running: bool) -> list[str]:  # noqa: UP045
    """Return what is wrong with memory, in bytes: Docker's, and what is available of it if known."""
    if running:
        return []
    found = total if available is None else min(total, available)
    if found >= NEEDED_MEMORY:
        return []
    needed = NEEDED_MEMORY / 1024**3
    problem = (
        f"{found / 1024**3:.1f} GB of memory are available to Docker, {needed:.0f} GB are needed: end "
        "other programs, or give Docker more"
    )
    return [problem]


def disk_problems(folder: str, free: int, built: bool) -> list[str]:
    """Return what is wrong with the disk of Docker's folder; ``free`` in bytes."""
    needed = NEEDED_DISK_BUILT if built else NEEDED_DISK
    if free >= needed:
        return []
    what = "" if built else " to build the images"
    problem = (
        f"the disk of {folder} has {free / 1024**3:.1f} GB left, {needed / 1024**3:.0f} GB are "
        f"needed{what}: free some, for example with `docker system prune`"
    )
    return [problem]


def compose_command() -> Optional[list[str]]:  # noqa: UP045
    """Return the command of Docker Compose: its plugin, or the older program; None without either."""
    if shutil.which("docker") and _run("docker", "compose", "version").returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def problems(environment: Mapping[str, str], *, observability: bool = False) -> list[str]:
    """Return everything that keeps the stack from starting here."""
    if not shutil.which("docker"):
        return [
            "there is no docker command: install Docker (https://docs.docker.com/engine/install)"
        ]
    info = _run("docker", "info", "--format", "{{json .}}")
    try:
        engine = json.loads(info.stdout) if info.returncode == 0 else {}
    except ValueError:
        engine = {}
    if not engine.get("ServerVersion"):
        said = (info.stderr.strip() or "no answer").splitlines()[-1]
        return [f"docker does not respond ({said}): start it, or ask for the right to use it"]
    if compose_command() is None:
        return ["Docker Compose is missing: install its plugin, or docker-compose 1.29"]
    project = environment.get("COMPOSE_PROJECT_NAME") or ROOT.name
    own = _own_ports(project)
    wanted = ports(FILE.read_text(encoding="utf-8"), environment)
    if not observability:
        wanted = {name: port for name, port in wanted.items() if name not in _OPTIONAL}
    found = port_problems(wanted, own)
    found += memory_problems(int(engine.get("MemTotal", 0)), _available(), running=bool(own))
    folder = str(engine.get("DockerRootDir", ""))
    if folder and Path(folder).is_dir():  # elsewhere than here on Docker Desktop
        tag = environment.get("SHASHIN_COMPOSE_TAG") or "compose"
        built = _run("docker", "image", "inspect", f"shashin/embedder:{tag}").returncode == 0
        found += disk_problems(folder, shutil.disk_usage(folder).free, built)
    return found


def _own_ports(project: str) -> set[int]:
    label = f"label=com.docker.compose.project={project}"
    listed = _run("docker", "ps", "--filter", label, "--format", "{{.Ports}}").stdout
    return {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)->", listed)}


def _available() -> Optional[int]:  # noqa: UP045
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:")), None)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def not_ready(compose: list[str]) -> list[str]:
    """Return which containers are not healthy yet, with their state; one-shot ones have ended well."""
    ids = subprocess.run(
        [*compose, "ps", "-q", "-a"] if compose[0] == "docker" else [*compose, "ps", "-q"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split()
    if not ids:
        return ["no container"]
    waiting = []
    for container in json.loads(_run("docker", "inspect", *ids).stdout or "[]"):
        state = container["State"]
        name = container["Config"]["Labels"]["com.docker.compose.service"]
        health = state.get("Health", {}).get("Status")
        ended = state["Status"] == "exited" and state["ExitCode"] == 0
        if not (health == "healthy" or (health is None and ended)):
            waiting.append(f"{name} ({health or state['Status']})")
    return waiting


def run_saying(command: list[str], doing: str) -> int:
    """Run a command, saying now and then how far it is, and what it printed if it fails; returns its code."""
    began = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        printed: deque[str] = deque(maxlen=_SHOWN_LINES)
        # In a thread of its own, since a step may print nothing for minutes.
        reader = threading.Thread(target=printed.extend, args=(process.stdout,), daemon=True)
        reader.start()
        while True:
            try:
                code = process.wait(_SAY_SECONDS if sys.stdout.isatty() else _SAY_SECONDS_IN_LOGS)
                break
            except subprocess.TimeoutExpired:
                _say(time.monotonic() - began, f"{doing}: {_progress(printed.copy())}")
        reader.join()
    if code:
        print("".join(printed), file=sys.stderr)
        print(f"compose: `{' '.join(command)}` failed with {code}", file=sys.stderr)
    else:
        _say(time.monotonic() - began, f"{doing}: done", last=True)
    return code


def _say(seconds: float, text: str, *, last: bool = False) -> None:
    """Print a line of progress; on a terminal it takes the place of the one before."""
    if sys.stdout.isatty():
        print(f"\r{seconds:4.0f} s  {text}\x1b[K", end="\n" if last else "", flush=True)
    else:
        print(f"{seconds:4.0f} s  {text}", flush=True)


def _progress(printed: Iterable[str]) -> str:
    """Return the last line that says where a build is, and otherwise the last one."""
    lines = [line.strip() for line in printed if line.strip()]
    steps = [line for line in lines if _STEP.match(line)]
    return (steps or lines or ["nothing yet"])[-1][:_SHOWN_CHARACTERS]


def up(environment: Mapping[str, str], *, observability: bool = False) -> int:
    """Build, start and wait until everything is ready; returns the exit code."""
    compose = compose_command()
    assert compose is not None
    if observability:
        compose += ["--profile", "observability"]
    for step, doing in ((["build"], "building"), (["up", "-d"], "starting")):
        code = run_saying([*compose, *step], doing)
        if code:
            return code
    began = time.monotonic()
    while waiting := not_ready(compose):
        seconds = time.monotonic() - began
        if seconds > _READY_SECONDS:
            print(
                f"not ready after {seconds:.0f} s: see `{' '.join(compose)} logs`", file=sys.stderr
            )
            return 1
        _say(seconds, f"waiting for {', '.join(waiting)}"[:_SHOWN_CHARACTERS])
        time.sleep(_SAY_SECONDS)
    _say(time.monotonic() - began, "every container is ready", last=True)
    router = ports(FILE.read_text(encoding="utf-8"), environment)["SHASHIN_COMPOSE_ROUTER_PORT"]
    print(
        f"ready: the router listens on 127.0.0.1:{router}. Try, in a checkout after `make install`:"
    )
    print(f"  .venv/bin/shashin search --listing shop-00000001 --router 127.0.0.1:{router}")
    return 0


def main(arguments: list[str]) -> int:
    """Check, and with ``up`` start; returns the exit code."""
    observability = arguments[1:] == [_OBSERVABILITY]
    if arguments[:1] not in (["check"], ["up"]) or (arguments[1:] and not observability):
        print(f"usage: python3 compose/stack.py check | up [{_OBSERVABILITY}]", file=sys.stderr)
        return 2
    found = problems(os.environ, observability=observability)
    for problem in found:
        print(f"compose: {problem}", file=sys.stderr)
    if found:
        print("compose: nothing was started", file=sys.stderr)
        return 1
    if arguments[0] == "check":
        print("compose: this machine can run it")
        return 0
    return up(os.environ, observability=observability)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
