"""Fuzzes one target in this process: ``python -m tests.fuzz.one TARGET FOLDER... OPTION...`` of libFuzzer."""

from __future__ import annotations

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["shashin", "services"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run libFuzzer, which ends the process."""
    warnings.simplefilter("ignore")  # Pillow's, about what it repairs
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name].read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
