"""The image builder: decides what each tier should serve, and rolls it out."""
