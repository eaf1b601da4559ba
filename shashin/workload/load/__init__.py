"""Open-loop load on a running system: schedules, drivers, a recorder and a report."""
