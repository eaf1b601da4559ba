"""The model repository: shards and tier pointers in an object store."""
