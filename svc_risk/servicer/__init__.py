"""The RPCs of risk."""
