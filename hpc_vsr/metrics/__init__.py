"""Figures that compare a frame with what it should be."""
