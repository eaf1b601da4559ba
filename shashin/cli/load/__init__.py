"""``shashin load``."""
