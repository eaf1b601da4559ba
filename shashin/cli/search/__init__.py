"""``shashin search``."""
