"""Positions by executions, first in first out. Pure."""
