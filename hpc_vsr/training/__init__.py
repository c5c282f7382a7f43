"""Trains a network: plan, steps, objective, validation."""
