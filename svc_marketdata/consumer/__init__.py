"""What runs beside the calls: trades are written down."""
