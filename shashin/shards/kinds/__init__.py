"""Index kinds: each wraps one library and its quirks; a manifest names its kind."""
