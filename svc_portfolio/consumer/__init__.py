"""What portfolio does on its own: it follows executions, accounts and instruments, and prices."""
