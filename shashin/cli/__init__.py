"""The command ``shashin``: one module per command group."""
