"""Index kinds: each owns one library and its quirks; a manifest names its kind."""
