"""The rules of risk: pure functions over durable facts. No clock, no I/O; time arrives with the facts."""
