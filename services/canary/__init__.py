"""The canary: publishes known listings, searches for them, sells them, and measures both."""
