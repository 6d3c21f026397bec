"""What risk asks of the outside: the order service, and reference prices of the market data service."""
