"""Shards: how they are cut from the log, built, stored, mapped, hidden from and searched."""
