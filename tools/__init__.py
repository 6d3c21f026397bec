"""The project's own generators and checks; nothing here ships with a service."""
