"""The downloader: validates listing events, fetches their photos, and hides sold listings."""
