"""The rules of the WebSocket door: what clients may say, from where, how often, and what a ticket is. No I/O, no clock."""
