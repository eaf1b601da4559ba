"""The router's image has neither indexes nor models: all of its code has to load without their libraries."""

from __future__ import annotations

import subprocess
import sys

from tests.support.running_service import ROOT

LOAD_ALL = """
import importlib, pkgutil, sys

ABSENT = ("pyarrow", "usearch", "torch", "torchvision", "PIL", "google.cloud.storage")

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if any(name == absent or name.startswith(absent + ".") for absent in ABSENT):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
for name in ABSENT:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} is still found")
import services.router
for module in pkgutil.iter_modules(services.router.__path__, "services.router."):
    importlib.import_module(module.name)
print(*sorted(name for name in sys.modules if name.startswith("services.router.")))
"""


def test_all_of_the_router_loads_where_no_library_of_indexes_and_models_is_installed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOAD_ALL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    modules = {path.stem for path in (ROOT / "services" / "router").glob("*.py")} - {"__init__"}
    assert {name.rpartition(".")[2] for name in ended.stdout.split()} == modules
