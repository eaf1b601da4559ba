"""``shashin builds``."""
