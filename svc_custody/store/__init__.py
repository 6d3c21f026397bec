"""The only SQL of custody: ledgers, settlements, holds, facts, the business date, first answers."""

from pathlib import Path

from kernel.postgres import KERNEL_MIGRATIONS, MigrationSource

MIGRATIONS = (KERNEL_MIGRATIONS, MigrationSource("svc_custody", Path(__file__).resolve().parent.parent / "migrations"))
"""What the schema of custody is made of, in order."""
