"""Starting docker-compose.yml on this machine."""
