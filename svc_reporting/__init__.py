"""Reporting: trade blotters and order audit trails, made again byte for byte from positions, rules and parameters."""
