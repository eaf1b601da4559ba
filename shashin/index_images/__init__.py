"""Images of the index server with the shards that it serves, one layer for each."""
