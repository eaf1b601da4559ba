"""Between protobuf messages and Shashin's own types, and the sizes that messages may have.

One module for each kind of message, so that a process imports only what it speaks.
"""
