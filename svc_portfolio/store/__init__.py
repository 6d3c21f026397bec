"""The only SQL of portfolio: executions, positions, lots, reference data."""

from pathlib import Path

from kernel.postgres import KERNEL_MIGRATIONS, MigrationSource

MIGRATIONS = (KERNEL_MIGRATIONS, MigrationSource("svc_portfolio", Path(__file__).resolve().parent.parent / "migrations"))
"""What the schema of portfolio is made of, in order."""
