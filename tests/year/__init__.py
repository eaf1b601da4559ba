"""A year of listing events, replayed at reduced size with a clock of its own."""
