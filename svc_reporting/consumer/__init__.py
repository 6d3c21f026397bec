"""What runs beside the calls: copies of other services' logs, and the writing of reports."""
