"""Searches measured: this system and, beside it, the libraries and databases that others use."""
