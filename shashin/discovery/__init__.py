"""Which endpoints are ready now: one Protocol, one adapter per URI scheme."""
