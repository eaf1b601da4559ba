"""The router: fans queries out to the active model's endpoints, merges hits, reports coverage."""
