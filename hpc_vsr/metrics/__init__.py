"""Metrics that compare an enlarged frame with the HR frame."""
