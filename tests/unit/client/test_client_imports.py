"""Another team's service installs little: the client must load with gRPC and protobuf alone."""

from __future__ import annotations

import subprocess
import sys

from tests.support.running_service import ROOT

LOAD = """
import sys

NEEDED = {"google", "grpc", "shashin", "typing_extensions", "cython_runtime"}
GOOGLE = {"google.protobuf", "google.rpc"}

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        first, two = name.split(".")[0], ".".join(name.split(".")[:2])
        if first in sys.stdlib_module_names or first.startswith("_"):
            return None
        if first not in NEEDED or (two.startswith("google.") and two not in GOOGLE):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, NotInstalled())
for name in ("numpy", "pydantic", "structlog", "torch", "google.cloud.storage"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} is still importable")
from shashin.client import Client, InvalidQuery
with Client("localhost:1") as shashin:
    try:
        shashin.search(vector=[0.5, float("1e99")])
    except InvalidQuery as error:
        print(error.field)
"""


def test_the_client_loads_with_grpc_and_protobuf_alone() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["vector"]
