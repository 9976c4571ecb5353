"""Networks, their weights, and what follows from their shape."""
