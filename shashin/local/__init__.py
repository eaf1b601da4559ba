"""The whole system on one machine: the embedded Kafka, and a supervisor for every process."""
