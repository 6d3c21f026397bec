"""The only SQL of reporting: copies of other services' events, reports, their content."""

from pathlib import Path

from kernel.postgres import KERNEL_MIGRATIONS, MigrationSource

MIGRATIONS = (KERNEL_MIGRATIONS, MigrationSource("svc_reporting", Path(__file__).resolve().parent.parent / "migrations"))
"""What the schema of reporting is made of, in order."""
