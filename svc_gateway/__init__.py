"""The gateway behind the edge: server streams and reads over WebSocket, and the documentation page."""
