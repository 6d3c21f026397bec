"""What the outside world would be: real protocols, simulated institutions."""
