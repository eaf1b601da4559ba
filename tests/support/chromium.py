"""The Chromium in PATH, or the one of SHASHIN_TEST_CHROMIUM."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import Browser, Playwright

VARIABLE = "SHASHIN_TEST_CHROMIUM"
CHROMIUM = os.environ.get(VARIABLE) or shutil.which("chromium")
MISSING = f"no Chromium: install Debian's package `chromium`, or name a binary in {VARIABLE}"


async def launched(playwright: Playwright) -> Browser:
    """Return a running browser; its sandbox is none that root can have."""
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
