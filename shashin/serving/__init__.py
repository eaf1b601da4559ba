"""Serving shards over gRPC: the endpoint, what it serves, and the fleet that asks endpoints."""
