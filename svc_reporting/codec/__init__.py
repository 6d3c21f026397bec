"""Messages to values of the domain and back."""
