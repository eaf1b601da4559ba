"""The command ``shashin``: one module a group of commands, and what they print."""
