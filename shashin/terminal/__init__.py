"""Terminal output, and running and interrupting commands."""
