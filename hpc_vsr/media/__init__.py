"""Reads and writes videos, images and fields, with what belongs to them: planes, colours, cuts, chroma."""
