"""Upscale a video, a folder of images or a field with a trained network.

A video keeps its number of frames, time stamps, sound, subtitles, chapters, rotation, colours and depth. The network
enlarges luma (or RGB, if it was trained on RGB), and Lanczos interpolation enlarges chroma. If an upscaling is killed,
the same command continues it. Under mpiexec or srun the ranks share the work; with --part the tasks of a job array do.

    python -m hpc_vsr.upscale --run runs/delta --input in.mp4 --output out.mp4
    mpiexec -n 8 python -m hpc_vsr.upscale --run runs/delta --input in.mp4 --output out.mp4
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from hpc_vsr.system.errors import exit_status
from hpc_vsr.system.mpi import abort_together, connect, on_main_rank, printed_once
from hpc_vsr.system.parser import Parser
from hpc_vsr.upscale.settings import UpscaleSettings

LOCAL_RANKS = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")  # the number of a rank on its node


def build_parser() -> Parser:
    parser = Parser("upscale", __doc__)
    parser.add_settings(UpscaleSettings, "--config", first=("run", "input", "output", "compare", "codec", "quality"))
    parser.add_argument("--dry-run", action="store_true", help="print the settings and the plan; write nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    comm = connect()
    with printed_once(comm):
        settings, arguments = build_parser().parse(argv)
    with abort_together(comm):
        local_rank = next((int(os.environ[name]) for name in LOCAL_RANKS if name in os.environ), comm.rank)
        # imported late, because torch takes seconds that --help and a mistyped option need not wait
        from hpc_vsr.upscale.errors import check_error_map, error_settings, error_upscaler
        from hpc_vsr.upscale.loop import format_plan, upscale
        from hpc_vsr.upscale.network import load_network

        upscaler = load_network(settings, comm, local_rank)
        predictor = error_upscaler(settings, upscaler) if settings.error_map else None
        if arguments.dry_run:
            on_main_rank(comm, lambda: print(format_plan(settings, upscaler)))
        if predictor is not None:  # refuse what cannot be written before hours of work
            on_main_rank(comm, lambda: check_error_map(settings, upscaler, predictor))
        if arguments.dry_run:
            return
        written = [settings.output] if upscale(settings, upscaler, comm) else []
        if predictor is not None and upscale(error_settings(settings, upscaler), predictor, comm):
            written.append(settings.error_map)
    if comm.rank == 0:
        print(*written, sep="\n", end="\n" if written else "")


if __name__ == "__main__":
    sys.exit(exit_status(main))
