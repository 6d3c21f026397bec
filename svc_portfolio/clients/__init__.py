"""What portfolio asks of the outside: market data, for marks."""
