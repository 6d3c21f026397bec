"""The `trademesh` command."""
