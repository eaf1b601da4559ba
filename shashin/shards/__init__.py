"""Shards: their format, their index kinds, and the open and sealed ones that are searched."""
