"""Risk: pre-trade checks, limits, kill switches, accounts and instruments."""
