"""Programs that use a running service."""
