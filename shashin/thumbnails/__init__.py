"""Thumbnails by the hash of their photo: what web pages show, and no part of the pipeline."""
