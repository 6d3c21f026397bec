"""The only SQL of market data: trades."""

from pathlib import Path

from kernel.postgres import KERNEL_MIGRATIONS, MigrationSource

MIGRATIONS = (KERNEL_MIGRATIONS, MigrationSource("svc_marketdata", Path(__file__).resolve().parent.parent / "migrations"))
"""What the schema of market data is made of, in order."""
