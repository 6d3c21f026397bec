"""The bus: it makes events travel faster, and may lose all of them. See `kernel.bus.port`."""
