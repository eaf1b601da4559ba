"""The indexer: serves the live tier from the log and seals it into shards."""
