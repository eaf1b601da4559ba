"""Which endpoints exist now: one small Protocol, one adapter a size of the system."""
