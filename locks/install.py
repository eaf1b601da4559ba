"""Makes .venv and installs everything that a checkout needs, from the locks.

Needs nothing but Python 3.11 or newer. Safe to repeat: does nothing when the locks and the choice
of torch are those of the last time. ``UV_TORCH_BACKEND=cpu`` takes torch's small build.
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
BACKEND = os.environ.get("UV_TORCH_BACKEND", "")
MIN_PYTHON = (3, 11)
TORCH_PACKAGES = ("torch", "torchvision")


def fingerprint() -> str:
    """Return what the environment depends on, as hex."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {BACKEND} {ROOT}".encode())
    for path in (
        *sorted(LOCKS.glob("*.txt")),
        ROOT / "pyproject.toml",
        ROOT / "catalogue/pyproject.toml",
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Say what is done, and every few seconds how large the environment is by now."""
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
    """Run a command that tells by itself what is wrong."""
    if code := subprocess.run(command, check=False, cwd=ROOT).returncode:
        sys.exit(f"install: `{' '.join(command[:6])} ...` failed with exit code {code}")


def uv_install(*arguments: str) -> None:
    """Install into the environment with uv."""
    run(str(PYTHON), "-m", "uv", "pip", "install", "--python", str(PYTHON), *arguments)


def torch_pins() -> list[str]:
    """Return the exact versions of torch's packages, without hashes: other builds have others."""
    lines = (LOCKS / "torch.txt").read_text().splitlines()
    pins = [line.split()[0] for line in lines if "==" in line]
    return [pin for pin in pins if pin.split("==")[0] in TORCH_PACKAGES]


def main() -> None:
    """Install what is missing."""
    if sys.version_info < MIN_PYTHON:
        sys.exit(
            f"install: this is Python {sys.version.split()[0]}, Shashin needs 3.11 or newer: "
            "run `make PYTHON=/path/to/python3.11 ...`"
        )
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    if not PYTHON.exists():
        with telling("making .venv"):
            venv.create(VENV, with_pip=True, symlinks=True)
    with telling("uv, which installs the rest"):
        run(
            *(str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
            *("--require-hashes", "-r", str(LOCKS / "uv.txt")),
        )
    with telling("the locked packages"):
        uv_install("--require-hashes", "--no-deps", "-r", str(LOCKS / "dev.txt"))
    if BACKEND:
        with telling(f"torch, its {BACKEND} build"):
            uv_install("--no-deps", "--torch-backend", BACKEND, *torch_pins())
    else:
        with telling("torch (on Linux with CUDA, 5.5 GB; UV_TORCH_BACKEND=cpu takes a small one)"):
            uv_install("--require-hashes", "--no-deps", "-r", str(LOCKS / "torch.txt"))
    with telling("shashin itself"):
        uv_install(
            "--no-deps", "--no-build-isolation", "--editable", ".", "--editable", "catalogue"
        )
    STAMP.write_text(wanted)
    print("install: done", flush=True)


if __name__ == "__main__":
    main()
