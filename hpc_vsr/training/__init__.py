"""Trains a network: plan, precision, objective, steps, validation."""
