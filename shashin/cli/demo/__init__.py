"""``shashin demo``."""
