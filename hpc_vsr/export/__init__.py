"""Exports a trained network, with its model card, for other programs."""
