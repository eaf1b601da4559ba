"""Conversions between protobuf messages and Shashin's types, and limits on message sizes.

One module per kind of message, so that a process imports only what it uses.
"""
