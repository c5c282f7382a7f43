"""Measures how good a trained network is, beside the baselines."""
