"""What a report is made of, and how its bytes follow from it. Pure."""
