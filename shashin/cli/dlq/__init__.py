"""``shashin dlq``."""
