"""The object store: one Protocol, one adapter a kind of store."""
