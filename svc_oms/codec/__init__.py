"""Between the contract and the domain: events, orders, requests."""
