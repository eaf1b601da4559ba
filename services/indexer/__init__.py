"""The indexer: serves the live tier from the log, and seals shards from it."""
