"""gRPC: how every server starts and every channel is opened."""
