"""The portfolio service: positions, lots, profit, marked by market data."""
