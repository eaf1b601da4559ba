"""The index server: serves the sealed shards in a tier's pointer."""
