"""What every service process has: settings, logs, health, metrics and a clean drain."""
