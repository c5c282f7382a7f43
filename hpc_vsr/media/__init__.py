"""Reads and writes videos, images and fields, and handles their planes, colours, scene cuts and chroma."""
