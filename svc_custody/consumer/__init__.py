"""What follows other services' logs, and the clock."""
