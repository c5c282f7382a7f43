"""Write gpu_reference.npz: outputs and gradients of the networks with known weights, by torch's own convolutions in
float64 on a CPU.

    python tests/golden/make_gpu_reference.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

import numpy as np  # noqa: E402
from gpu_kit.reference import FILE, NAMES, compute  # noqa: E402


def main() -> None:
    arrays = {}
    for name in NAMES:
        answer = compute(name)
        arrays |= {f"{name}_out": answer.out, f"{name}_loss": answer.loss, f"{name}_gradients": answer.gradients}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {', '.join(NAMES)}, {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
