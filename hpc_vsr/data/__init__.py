"""Data sets: recipe, plan, degradation, shards, and the samples that are read from shards."""
