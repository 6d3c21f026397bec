"""Between orders and venues: who may send, what is sent, what comes back, and what is asked after."""
