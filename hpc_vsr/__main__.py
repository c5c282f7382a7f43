"""Runs `hpc-vsr STAGE ...`, which is the same as `python -m hpc_vsr.STAGE ...`."""

from __future__ import annotations

import importlib
import sys

from hpc_vsr import __version__
from hpc_vsr.system.errors import BAD_INPUT, DONE, exit_status
from hpc_vsr.system.signals import hold_signals

STAGES = {
    "preprocess": ("hpc_vsr.preprocess", "frames of a video, images or a field to a data set of samples"),
    "train": ("hpc_vsr.train", "train a network on a data set"),
    "evaluate": ("hpc_vsr.evaluate", "measure a trained network and the baselines"),
    "calibrate": ("hpc_vsr.calibrate", "let a trained network predict how far off it is"),
    "report": ("hpc_vsr.report.__main__", "make a page, tables and JSON of one or more runs"),
    "upscale": ("hpc_vsr.upscale.__main__", "enlarge a video, images or a field with a trained network"),
    "export": ("hpc_vsr.export.__main__", "write a trained network as ONNX and torch.export, with a model card"),
    "import_weights": ("hpc_vsr.import_weights", "turn the weights that the paper's authors published into a run"),
    "launch": ("hpc_vsr.launch", "train, evaluate and report a job file, here or on a SLURM cluster"),
    "status": ("hpc_vsr.status", "a table of the runs of a job file: queue, progress, time left"),
    "job": ("hpc_vsr.job", "what a SLURM job runs; the scripts in slurm/ use it"),
    "site": ("hpc_vsr.site", "a cluster's options for the scripts in slurm/, as shell variables"),
    "doctor": ("hpc_vsr.doctor.__main__", "check MPI, SLURM, GPUs, arithmetic and storage of this machine"),
}


def usage() -> str:
    lines = [f"  {name:<14} {meaning}" for name, (_, meaning) in STAGES.items()]
    return "\n".join([
        f"hpc-vsr {__version__}: high-resolution video from low-resolution video",
        "usage: hpc-vsr STAGE [options]        hpc-vsr STAGE --help", "", *lines, "",
        "exit status: 0 done, 2 the input is wrong, 75 stopped and can continue, 1 anything else"])


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return DONE if arguments else BAD_INPUT
    if arguments[0] == "--version":
        print(__version__)
        return DONE
    if arguments[0] not in STAGES:
        print(f"error: unknown stage {arguments[0]!r}; stages: {', '.join(STAGES)}", file=sys.stderr)
        return BAD_INPUT
    if arguments[0] == "train" or arguments[:2] == ["job", "train"]:  # they handle SLURM's signals
        hold_signals()
    stage = importlib.import_module(STAGES[arguments[0]][0])
    return exit_status(stage.main, arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
