"""What risk asks of the outside: the order service, and the price feed."""
