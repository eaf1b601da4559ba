"""The embedder: one torch model, a worker for listings and a server for queries."""
