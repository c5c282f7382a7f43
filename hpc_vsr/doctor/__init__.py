"""Checks whether a machine is fit for a training, and advises where it falls short."""
