"""Make a report of one or more runs: index.html (one file that needs no network), report.md, report.json, metrics.csv.

All runs must have been measured on the same data set with `python -m hpc_vsr.evaluate`; a run without a measurement is
listed as missing. The report always shows bicubic enlargement and Wiener deconvolution for comparison.
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
                        help="folder of the report; the default is RUN/report of the first run")
    parser.add_argument("--split", type=Literal["test", "val", "train"], default="test",
                        help="which evaluations to show")
    parser.add_argument("--level", type=float | None, default=None, metavar="DB",
                        help="show the epoch at which each run's validation PSNR first reached this level; the default "
                             "is the highest level that all runs reach")
    return parser


def _runs_in(folder: Path) -> list[Path]:
    """Return the runs in the folder of a sweep, or the folder itself; a report among them is not a run."""
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
        raise InputError(f"{arguments.runs[0]}: is a report; give the run folders instead, runs/NAME")
    # imported late: it takes seconds, which --help and a mistyped option should not
    from hpc_vsr.report.write import write_report

    print(write_report(runs, arguments.out or RunFolder(arguments.runs[0]).report, arguments.split, arguments.level))


if __name__ == "__main__":
    sys.exit(exit_status(main))
