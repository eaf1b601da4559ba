"""The index server: serves the sealed shards that a tier's pointer names."""
