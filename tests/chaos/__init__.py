"""The crash matrix: `make chaos`."""
