"""Make a report of one or more runs: index.html (one file, no network), report.md, report.json and metrics.csv.

The runs must have been measured on one data set with `python -m hpc_vsr.evaluate`; a run that was not is listed as
missing. Rows of bicubic enlargement and of Wiener deconvolution are always there.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.errors import InputError, exit_status
from hpc_vsr.system.parser import Parser


def build_parser() -> Parser:
    parser = Parser("report", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN",
                        help="run folders, runs/NAME, or the folder of a sweep")
    parser.add_argument("--out", type=Path | None, default=None,
                        help="folder of the report; RUN/report of the first run if not given")
    parser.add_argument("--split", type=Literal["test", "val", "train"], default="test",
                        help="which evaluations to show")
    parser.add_argument("--level", type=float | None, default=None, metavar="DB",
                        help="say at which epoch each run's validation PSNR first reached this; the highest that all "
                             "runs reach if not given")
    return parser


def _runs_in(folder: Path) -> list[Path]:
    """The runs of a sweep if it is the folder of one, else itself; a report that lies among them is no run."""
    if (folder / "config.json").exists():
        return [folder]
    inside = sorted(path.parent for path in folder.glob("*/config.json"))
    return inside or ([] if (folder / "report.json").exists() else [folder])


def main(argv: Sequence[str] | None = None) -> None:
    _, arguments = build_parser().parse(argv)
    if arguments.level is not None and not math.isfinite(arguments.level):
        raise InputError(f"--level: must be a number of dB, found {arguments.level}")
    runs = [RunFolder(path) for named in arguments.runs for path in _runs_in(named)]
    if not runs:
        raise InputError(f"{arguments.runs[0]}: is a report; name the runs, runs/NAME")
    # loaded when it is wanted: torch takes seconds, and --help and a mistyped option none
    from hpc_vsr.report.write import write_report

    print(write_report(runs, arguments.out or RunFolder(arguments.runs[0]).report, arguments.split, arguments.level))


if __name__ == "__main__":
    sys.exit(exit_status(main))
