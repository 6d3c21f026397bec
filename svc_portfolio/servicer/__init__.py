"""The RPCs of portfolio."""
