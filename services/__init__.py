"""The pipeline, one package per service; services interact only through topics, the repository and gRPC."""
