"""The downloader: checks listing events, fetches their photos, and says what is sold."""
