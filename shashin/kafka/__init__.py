"""Kafka: the topics, and the only loops that read and write them."""
