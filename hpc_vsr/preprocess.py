"""Turn the frames of a video, a folder of images or a field into a data set of sharded 5-frame LR/HR samples.

Several videos (--video "runs/*.mp4"), folders or fields become one data set of many clips.

The command runs as one process, under `mpiexec -n N` or under `srun --mpi=pmi2|pmix`, and writes the same bytes for any
number of ranks. Run it again and it checks the finished shards and writes only the missing ones.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpc_vsr.data.plan import format_plan, plan_dataset
from hpc_vsr.data.recipe import Recipe
from hpc_vsr.system.config import as_dict
from hpc_vsr.system.errors import exit_status
from hpc_vsr.system.mpi import abort_together, connect, printed_once
from hpc_vsr.system.parser import Parser


def build_parser() -> Parser:
    parser = Parser("preprocess", __doc__)
    parser.add_settings(Recipe, "--recipe", first=("video", "frames", "field", "variable", "out", "shards"))
    parser.add_argument("--dry-run", action="store_true", help="print the recipe, the plan and its size; write nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    comm = connect()
    with printed_once(comm):
        recipe, arguments = build_parser().parse(argv)
    with abort_together(comm):
        if arguments.dry_run:
            plan = plan_dataset(recipe, comm)
            if comm.rank == 0:
                print("\n".join(f"{key} = {value}" for key, value in as_dict(recipe).items()))
                print(format_plan(plan))
            return
        # imported late, because --help and a mistyped option need no HDF5 and OpenCV
        from hpc_vsr.data.build import format_dataset, preprocess

        manifest = preprocess(recipe, comm)
    if comm.rank == 0:
        print(format_dataset(manifest))


if __name__ == "__main__":
    sys.exit(exit_status(main))
