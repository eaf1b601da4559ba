"""Generates ``shashin/v1`` from ``proto/``; with ``--check`` it only reports whether it is stale."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = Path("shashin/v1")


def generate(into: Path) -> None:
    """Write the messages, services and their types below ``into``."""
    plugins = Path(sys.executable).parent
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"),
            *(f"--python_out={into}", f"--grpc_python_out={into}"),
            *(f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",),
            *(f"--mypy_out=quiet,readable_stubs:{into}",),
            *(f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",),
            *(f"--mypy_grpc_out=quiet:{into}",),
            *sorted(str(path) for path in (ROOT / "proto").rglob("*.proto")),
        ],
        check=True,
    )


def generated(root: Path) -> dict[str, bytes]:
    """Return the generated files by name."""
    files = (root / PACKAGE).glob("*_pb2*.py*")
    return {path.name: path.read_bytes() for path in files}


def main() -> None:
    """Generate, or check."""
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh, current = generated(Path(folder)), generated(ROOT)
    stale = sorted(name for name in fresh | current if fresh.get(name) != current.get(name))
    if stale:
        sys.exit(f"stale in {PACKAGE}: {', '.join(stale)}; run `make proto`")


if __name__ == "__main__":
    main()
