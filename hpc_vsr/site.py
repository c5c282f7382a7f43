"""Print the settings of a cluster, ``slurm/sites/NAME.toml``, as shell variables for the scripts in slurm/:

    eval "$(python -m hpc_vsr.site --site slurm/sites/ncsa_delta.toml --project bbka)"
    sbatch $HPC_VSR_GPU slurm/train_delta.sbatch
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpc_vsr.cluster.site import add_site, format_shell, read_given_site
from hpc_vsr.system.errors import InputError, exit_status
from hpc_vsr.system.parser import Parser


def build_parser() -> Parser:
    parser = Parser("site", __doc__)
    add_site(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    _, arguments = build_parser().parse(argv)
    try:
        if arguments.site is None:
            raise InputError("--site is missing: name a file of slurm/sites/")
        text = format_shell(read_given_site(arguments), arguments.site, arguments.project)
    except InputError:
        print("false")  # makes eval "$(...)" fail too
        raise
    print(text)


if __name__ == "__main__":
    sys.exit(exit_status(main))
