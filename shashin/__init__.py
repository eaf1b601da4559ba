"""Code shared by Shashin's services, and the ``shashin`` command."""
