"""The only SQL of risk: what binds orders, exposures and reservations, prices, first answers."""

from pathlib import Path

from kernel.postgres import KERNEL_MIGRATIONS, MigrationSource

MIGRATIONS = (KERNEL_MIGRATIONS, MigrationSource("svc_risk", Path(__file__).resolve().parent.parent / "migrations"))
"""What the schema of risk is made of, in order."""
