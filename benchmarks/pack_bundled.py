"""Packs a trained run as the bundled network: its best weights, what predicts its error, and its configuration.

    python -m hpc_vsr.calibrate --run runs/bundled
    python benchmarks/pack_bundled.py --run runs/bundled

It replaces those in hpc_vsr/upscale/any-blur-2x, whose README.md, the model card, is written by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from hpc_vsr.runs.error_head import load_error, save_head  # noqa: E402
from hpc_vsr.runs.folder import RunFolder  # noqa: E402
from hpc_vsr.runs.state import save_checkpoint  # noqa: E402
from hpc_vsr.runs.trained import Trained, load_trained, network_state  # noqa: E402
from hpc_vsr.system.files import write_sealed  # noqa: E402
from hpc_vsr.upscale.bundled import FOLDER  # noqa: E402

SMALLEST = 0.0  # the blur whose fixed filters are stored; those of the others are computed when they are wanted
MOST_BYTES = 2e6


def pack(trained: Trained, config: dict, out: Path) -> RunFolder:
    """Write a run folder that an upscaling can load, and return it."""
    small = trained.at(SMALLEST)
    state = {**network_state(small.settings, small.terms, small.network.state_dict()),
             "network": {}, "optimiser": {}, "scaler": {}, "rng": torch.zeros(0, dtype=torch.uint8),
             "step": trained.step, "samples_seen": 0, "best_psnr": None, "best_step": 0, "bad_steps": 0}
    run = RunFolder(out)
    shutil.rmtree(run.checkpoints.folder, ignore_errors=True)
    run.checkpoints.folder.mkdir(parents=True)
    save_checkpoint(run.checkpoints, state, trained.step, 1, None)
    write_sealed(run.config, config)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of jobs/bundled.toml")
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"folder to write (default: {FOLDER})")
    arguments = parser.parse_args()
    run = RunFolder(arguments.run)
    trained, config = load_trained(run), run.read_config()
    packed = pack(trained, {key: value for key, value in config.items() if key != "chosen"}, arguments.out)
    save_head(packed, load_trained(packed), load_error(run, trained).head)
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file())
    step = load_trained(RunFolder(arguments.out)).step
    print(json.dumps({"folder": str(arguments.out), "bytes": size, "step": step}))
    if size > MOST_BYTES:
        sys.exit(f"error: {size} bytes are more than the package may have")


if __name__ == "__main__":
    main()
