"""Re-index builds: another model's shards are indexed again, with new vectors of their photos."""
