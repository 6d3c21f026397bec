"""JSON to messages and back: strict requests, frames, the methods that are bridged, the documentation page."""
