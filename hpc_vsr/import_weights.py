"""Turn the weights that the authors of the paper published for 5-parallel into a run.

You can evaluate and report that run like one that was trained here. No code in the file is executed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hpc_vsr.system.errors import exit_status
from hpc_vsr.system.parser import Parser


def build_parser() -> Parser:
    parser = Parser("import_weights", __doc__)
    parser.add_argument("weights", type=Path, metavar="FILE", help="the published state dict, such as published.pth")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write, runs/NAME")
    parser.add_argument("--data", type=Path | None, default=None,
                        help="data set that 'evaluate' measures the run on; without it, name one in 'evaluate --data'")
    parser.add_argument("--output-range", type=tuple[float, float] | None, default=None, metavar="[LOW,HIGH]",
                        help="grey levels that the network's last step keeps to, such as [0,255] or [16,234]; without "
                             "it, those of the authors' files that are known by their SHA-256, else [0,255]")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    _, arguments = build_parser().parse(argv)
    # imported late, because torch takes seconds that --help and a mistyped option need not wait
    from hpc_vsr.evaluation.published import import_weights

    run, told = import_weights(arguments.weights, arguments.out, arguments.data, arguments.output_range)
    data = "" if arguments.data else " --data data/NAME"
    print(f"{run.path}: 5-parallel with the weights of {arguments.weights.name}\n{told}\n"
          f"next: python -m hpc_vsr.evaluate --run {run.path}{data}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
