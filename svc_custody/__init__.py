"""Custody: the double-entry ledger of cash and securities, settlement instructions, holds."""
