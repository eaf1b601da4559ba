"""The object store: one Protocol, one adapter per kind of store."""
