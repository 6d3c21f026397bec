"""Orders: their lifecycle, their routing to venues, and what venues report of them."""
