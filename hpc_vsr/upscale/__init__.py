"""Enlarges new material with a trained network: videos, folders of images and fields."""
