"""What outlives a request: tickets, in Redis."""
