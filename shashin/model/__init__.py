"""Embedding models: loading them, the project's own small network, its training and evaluation."""
