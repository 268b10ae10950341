"""Models in service: opened, found by name, reloaded, and asked for rows."""
