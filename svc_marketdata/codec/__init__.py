"""Market data on the wire."""
