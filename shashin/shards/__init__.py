"""Shards: their format, their index kinds, and open and sealed shards."""
