"""REST over the same searches as gRPC: HTTP to queries, answers to JSON, errors to problems."""
