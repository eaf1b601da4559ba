"""Servings: which image serves which shards of a tier."""
