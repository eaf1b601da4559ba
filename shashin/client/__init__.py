"""Talking to a running system from outside: events in, searches and topic tails out."""
