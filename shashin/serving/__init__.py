"""Serving shards over gRPC: the endpoint, its shards, and the fleet that calls endpoints."""
