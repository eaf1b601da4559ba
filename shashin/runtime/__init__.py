"""The runtime of every service process: settings, logs, health, metrics, graceful shutdown."""
