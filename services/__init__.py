"""The pipeline, one package a service; services meet only in topics, the repository and gRPC."""
