"""Trains the bundled model, and measures how well it finds nuclei."""
