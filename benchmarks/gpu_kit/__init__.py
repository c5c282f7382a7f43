"""The checks of benchmarks/gpu.py: correctness and speed on a GPU. `pytest -m gpu` runs them too."""
