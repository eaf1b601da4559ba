"""Kafka: the topics, and the code that reads and writes them."""

from shashin.kafka.decoding import install

# Here, because whatever reads Kafka imports this package, and one bad record must stop none of it.
install()
