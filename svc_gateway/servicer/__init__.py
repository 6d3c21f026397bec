"""The HTTP door: sockets, tickets, the documentation page."""
