"""The RPCs of market data, and what fans the feed out to their streams."""
