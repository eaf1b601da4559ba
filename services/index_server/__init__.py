"""The index server: serves the sealed shards of a tier, by its pointer or from an image."""
