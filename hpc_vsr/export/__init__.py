"""A trained network for other programs, with its card."""
