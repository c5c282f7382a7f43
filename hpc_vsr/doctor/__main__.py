"""Check MPI, SLURM, GPUs, the arithmetic of the networks and the storage, and advise where something is wrong.

Run it on the login node, and again on a node of the kind that will train:

    python -m hpc_vsr.doctor
    srun --ntasks=1 --gpus=1 python -m hpc_vsr.doctor

The exit status is 1 if something is broken. Read the warnings too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hpc_vsr.system.errors import Failed, exit_status
from hpc_vsr.system.parser import Parser


def build_parser() -> Parser:
    parser = Parser("doctor", __doc__)
    parser.add_argument("--folders", type=list[Path], default=[Path("data"), Path("runs")], metavar="[DATA,RUNS]",
                        help="folders in which data sets and runs will be kept")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    _, arguments = build_parser().parse(argv)
    # imported late: torch takes seconds, which --help and a mistyped option should not
    from hpc_vsr.doctor.findings import format_findings
    from hpc_vsr.doctor.runs import run_checks

    findings = []
    for finding in run_checks(arguments.folders):
        findings.append(finding)
        if sys.stderr.isatty():
            print(f"\r\033[K{len(findings)} checked: {finding.topic} {finding.check}", end="", file=sys.stderr,
                  flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(format_findings(findings))
    broken = [f"{finding.topic} {finding.check}" for finding in findings if finding.state == "broken"]
    if broken:
        raise Failed(f"broken: {', '.join(broken)}; the table says what to do")


if __name__ == "__main__":
    sys.exit(exit_status(main))
