"""Market data: receives a venue's feed, builds books, and shows quotes, books, trades and reference prices."""
