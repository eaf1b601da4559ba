"""The router's image has no index or model libraries: all router modules must load without them."""

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
    raise SystemExit(f"{name} is still importable")
import services.router
for module in pkgutil.walk_packages(services.router.__path__, "services.router."):
    importlib.import_module(module.name)
print(*sorted(name for name in sys.modules if name.startswith("services.router.")))
"""


def test_all_router_modules_load_without_index_and_model_libraries() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", LOAD_ALL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    paths = (path.relative_to(ROOT) for path in (ROOT / "services" / "router").rglob("*.py"))
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths}
    assert set(finished.stdout.split()) | {"services.router"} == modules
