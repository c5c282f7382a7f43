"""Upscale a video, a folder of images or a field with a trained network.

A video keeps its number of frames, time stamps, sound, subtitles, chapters, rotation, colours and depth; the network
enlarges luma (or RGB, if it was trained on it) and Lanczos interpolation chroma. A killed upscaling goes on when the
same command is given again. Under mpiexec or srun the ranks share the work; so do the tasks of a job array with --part.

    python -m hpc_vsr.upscale --run runs/delta --input in.mp4 --output out.mp4
    mpiexec -n 8 python -m hpc_vsr.upscale --run runs/delta --input in.mp4 --output out.mp4
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from hpc_vsr.config import Parser
from hpc_vsr.errors import BAD_INPUT, InputError, exit_status
from hpc_vsr.mpi import abort_together, connect, on_main_rank
from hpc_vsr.upscale.field import FIELD_SUFFIXES, upscale_field
from hpc_vsr.upscale.images import upscale_images
from hpc_vsr.upscale.settings import UpscaleSettings
from hpc_vsr.upscale.video import upscale_video
from hpc_vsr.upscaler import Upscaler, load

LOCAL_RANKS = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")  # the number of a rank on its node


def build_parser() -> Parser:
    parser = Parser("upscale", __doc__)
    parser.add_settings(UpscaleSettings, "--config")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    comm = connect()
    try:
        settings, _ = build_parser().parse(argv)
    except InputError:  # every rank has it: one line is enough
        if comm.rank != 0:
            sys.exit(BAD_INPUT)
        raise
    with abort_together(comm):
        local_rank = next((int(os.environ[name]) for name in LOCAL_RANKS if name in os.environ), comm.rank)
        upscaler = load(settings.run, settings.device, settings.precision, settings.tile, local_rank)
        complete = _upscale(settings, upscaler, comm)
    if comm.rank == 0 and complete:
        print(settings.output)


def _upscale(settings: UpscaleSettings, upscaler: Upscaler, comm: Any) -> bool:
    """Whether the output is complete."""
    if settings.input.suffix.lower() in FIELD_SUFFIXES or settings.variable is not None:
        on_main_rank(comm, lambda: upscale_field(settings, upscaler))  # frame by frame into one file: one rank
        return True
    if settings.input.is_dir():
        return upscale_images(settings, upscaler, comm)
    return upscale_video(settings, upscaler, comm)


if __name__ == "__main__":
    sys.exit(exit_status(main))
