"""What every service stands on: a pure half (values, ids, errors, decider, ports, fix) and an I/O half (everything else)."""
