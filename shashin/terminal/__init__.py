"""What a person at a terminal sees, and how a command runs and is interrupted."""
