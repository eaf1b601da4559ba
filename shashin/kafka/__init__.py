"""Kafka: the topics, and the code that reads and writes them."""
