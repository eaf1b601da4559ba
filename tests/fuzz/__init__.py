"""Inputs that nobody thought of, for what reads bytes from outside: ``make fuzz``."""
