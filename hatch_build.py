"""Compiles the native search for a wheel, or for an editable install."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = "shashin/shards/kinds/native"


class NativeLibrary(BuildHookInterface[Any]):
    """Runs the compiler before the files are collected."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Compile; the library works with any Python 3 of this platform."""
        subprocess.run(
            [sys.executable, f"{self.root}/{NATIVE}/build.py"], check=True, cwd=self.root
        )
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["artifacts"].append(f"/{NATIVE}/lists.so")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
