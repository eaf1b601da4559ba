"""The embedder: one torch model behind a worker for listings and a server for queries."""
