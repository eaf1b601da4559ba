"""The arithmetic of the log: offset ranges, where buckets are cut, what is covered. Pure."""
