"""The only SQL of the order service: appends and read models, one transaction for both."""
