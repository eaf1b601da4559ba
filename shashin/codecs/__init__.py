"""Between protobuf messages and Shashin's own types: events, index calls and offset ranges apart."""
