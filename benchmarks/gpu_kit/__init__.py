"""The checks of benchmarks/gpu.py: what has to hold, and what is measured, on a GPU. `pytest -m gpu` runs them too."""
