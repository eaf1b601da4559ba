"""Exit codes of ``shashin.builds.prepare``, by which whoever runs it knows what to do."""

from __future__ import annotations

from typing import Final

INVALID: Final = 2
"""The build cannot be run as it is."""

LOST_OUTPUT: Final = 3
"""What an earlier attempt has made is gone: the next one has to run all steps."""
