"""Runs the command as ``python -m shashin.cli``."""

from __future__ import annotations

from shashin.cli.app import main

if __name__ == "__main__":
    main()
