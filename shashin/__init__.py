"""What Shashin's services share, and the ``shashin`` command."""
