"""The search over inverted lists of codes, in C, and its compilation."""
