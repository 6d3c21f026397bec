"""The venue's feed: ITCH 5.0 over MoldUDP64, two lines, re-requests and snapshots (`kernel.itch` has the protocols)."""
