"""Creates .venv and installs everything that a checkout needs, from the locks.

Needs only Python 3.11 or newer. Idempotent: does nothing if the locks and the torch backend have not
changed. ``UV_TORCH_BACKEND=cpu`` selects the small CPU build of torch.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCKS = Path(__file__).parent
ROOT = LOCKS.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.sha256"
BENCH = LOCKS / "bench.txt"
"""What only comparisons need; installed by ``--bench``."""
BACKEND = os.environ.get("UV_TORCH_BACKEND", "")
MIN_PYTHON = (3, 11)
TORCH_PACKAGES = ("torch", "torchvision")


def fingerprint() -> str:
    """Return a hash of everything that the environment depends on."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {BACKEND} {ROOT}".encode())
    for path in (
        *(path for path in sorted(LOCKS.glob("*.txt")) if path != BENCH),
        ROOT / "pyproject.toml",
        ROOT / "catalogue/pyproject.toml",
        ROOT / "hatch_build.py",
        *sorted((ROOT / "shashin/shards/kinds/native").glob("*.[cp]*")),
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def reporting(what: str) -> Iterator[None]:
    """Print the current step, and every few seconds the size of the environment."""
    started = time.monotonic()
    print(f"install: {what}", flush=True)
    done = threading.Event()

    def follow() -> None:
        while not done.wait(2):
            size = sum(f.lstat().st_size for f in VENV.rglob("*") if f.is_file()) / 1e6
            print(
                f"install: {time.monotonic() - started:4.0f} s, {size:,.0f} MB in .venv",
                flush=True,
            )

    thread = threading.Thread(target=follow, daemon=True)
    if not sys.stderr.isatty():  # uv shows bars on a terminal
        thread.start()
    try:
        yield
    finally:
        done.set()


def run(*command: str) -> None:
    """Run a command that prints its own errors."""
    if code := subprocess.run(command, check=False, cwd=ROOT).returncode:
        sys.exit(f"install: `{' '.join(command[:6])} ...` failed with exit code {code}")


def uv_install(*arguments: str) -> None:
    """Install into the environment with uv."""
    run(str(PYTHON), "-m", "uv", "pip", "install", "--python", str(PYTHON), *arguments)


def torch_pins() -> list[str]:
    """Return the pinned versions of torch's packages, without hashes, which differ per build."""
    lines = (LOCKS / "torch.txt").read_text().splitlines()
    pins = [line.split()[0] for line in lines if "==" in line]
    return [pin for pin in pins if pin.split("==")[0] in TORCH_PACKAGES]


def main() -> None:
    """Install what is missing, and with ``--bench`` what searches are compared with."""
    install()
    if "--bench" in sys.argv[1:]:
        with reporting("installing what searches are compared with"):
            uv_install("--require-hashes", "--no-deps", "-r", str(BENCH))


def install() -> None:
    """Install what a checkout needs, unless it is there."""
    if sys.version_info < MIN_PYTHON:
        sys.exit(
            f"install: this is Python {sys.version.split()[0]}, Shashin needs 3.11 or newer: "
            "run `make PYTHON=/path/to/python3.11 ...`"
        )
    current = fingerprint()
    if STAMP.exists() and STAMP.read_text() == current:
        return
    if not PYTHON.exists():
        with reporting("creating .venv"):
            venv.create(VENV, with_pip=True, symlinks=True)
    with reporting("installing uv"):
        run(
            *(str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
            *("--require-hashes", "-r", str(LOCKS / "uv.txt")),
        )
    with reporting("installing the locked packages"):
        uv_install("--require-hashes", "--no-deps", "-r", str(LOCKS / "dev.txt"))
    if BACKEND:
        with reporting(f"installing torch ({BACKEND} build)"):
            uv_install("--no-deps", "--torch-backend", BACKEND, *torch_pins())
    else:
        with reporting(
            "installing torch (5.5 GB with CUDA on Linux; UV_TORCH_BACKEND=cpu is smaller)"
        ):
            uv_install("--require-hashes", "--no-deps", "-r", str(LOCKS / "torch.txt"))
    with reporting("installing shashin"):
        uv_install(
            "--no-deps", "--no-build-isolation", "--editable", ".", "--editable", "catalogue"
        )
    STAMP.write_text(current)
    print("install: done", flush=True)


if __name__ == "__main__":
    main()
