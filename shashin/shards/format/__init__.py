"""What a shard is on disk: its manifest, its rows, its name."""
