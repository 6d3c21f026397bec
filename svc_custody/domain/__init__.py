"""Custody's decisions: what is posted, when it settles, what is held. Pure."""
