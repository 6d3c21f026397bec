"""A venue: matching engine, FIX 4.4 acceptor, journal, synthetic order flow and scripted faults."""
