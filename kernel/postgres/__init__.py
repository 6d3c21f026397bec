"""PostgreSQL: pools, transactions and migrations."""

from kernel.postgres.database import Connection, Database, PoolSettings, Record, Transaction
from kernel.postgres.migrations import KERNEL_MIGRATIONS, Migration, MigrationError, MigrationSource, migrate, verify

__all__ = [
    "KERNEL_MIGRATIONS",
    "Connection",
    "Database",
    "Migration",
    "MigrationError",
    "MigrationSource",
    "PoolSettings",
    "Record",
    "Transaction",
    "migrate",
    "verify",
]
