"""The on-disk format of a shard: manifest, rows and id."""
