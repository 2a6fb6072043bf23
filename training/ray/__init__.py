"""Ray wiring: where workers are placed, how they meet, what surrounds them."""
