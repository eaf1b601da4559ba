"""The built-in steps of a build, each in a module with ``run``."""
