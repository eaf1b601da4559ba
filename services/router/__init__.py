"""The router: asks every endpoint of the active model, merges, and says what was not searched."""
